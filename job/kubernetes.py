"""A manifest as a Kubernetes Job: ``k8s/base/job.yaml`` with what the manifest and the user say.

That file is the one source of what a Job of this project looks like; kustomize builds on it too.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import job
from job.distributed.group import check_shared
from job.errors import UsageError
from job.manifest import Manifest, entries
from job.pipeline.plan import select
from job.stages import stages_for

BASE = Path(__file__).parent / "k8s" / "job.yaml"
# For the job to end in after its grace period, and for the kubelet to notice.
_MARGIN_SECONDS = 35
# A Job's pods are called NAME-INDEX-xxxxx, and that must fit a DNS label of 63.
_LONGEST_NAME = 50
_DIGEST = 6
_CONFIG_MAP_BYTES = 1 << 20
# The operator looks for a container of this name.
_PADDLE = "paddle"
_TRAINING = "qat"
_LAUNCH = (
    *("tini", "--", "python", "-m", "paddle.distributed.launch"),
    *("--nproc_per_node", "1", "--log_dir", "/tmp/log", "job"),  # noqa: S108
)
_MOST_CPUS, _MOST_HOURS = 1024, 24 * 365
# Of a namespace and the like; others are DNS names with dots, of at most 253 letters.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
_NAMES = {
    "namespace": _LABEL,
    "queue": _LABEL,
    "claim": _SUBDOMAIN,
    "secret": _SUBDOMAIN,
    "service_account": _SUBDOMAIN,
    "image": re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*"),
}
_QUANTITY = re.compile(r"[1-9][0-9]*(Mi|Gi|Ti|M|G|T)")

Object = Mapping[str, Any]


@dataclass(frozen=True)
class PodOptions:
    """What the user says besides the manifest; None leaves what the base says.

    Attributes:
        image: the image to run.
        namespace: where to put the Job.
        cpus: whole CPUs.
        memory: such as ``16Gi``.
        storage: the node's disk that the pod may fill, such as ``20Gi``.
        hours: the Job is ended after them.
        queue: a LocalQueue of Kueue's, which then decides when the Job starts.
        claim: a PersistentVolumeClaim that is mounted at /work instead of scratch.
        secret: a Secret whose keys become environment variables.
        service_account: one that stands for a role in a cloud.
        until: the last stage to run.
        score: make the Job that scores the test split in parts, beside the run itself.
        processes: how many pods share the quantization-aware training; the rest is left to a Job.
    """

    image: str | None = None
    namespace: str | None = None
    cpus: int | None = None
    memory: str | None = None
    storage: str | None = None
    hours: float | None = None
    queue: str | None = None
    claim: str | None = None
    secret: str | None = None
    service_account: str | None = None
    until: str | None = None
    score: bool = False
    processes: int | None = None


def render(manifest: Manifest, options: PodOptions) -> str:
    """Return the YAML of a ConfigMap with the manifest and of the Job that runs it.

    A matrix becomes an Indexed Job: one model a pod. Several processes become a PaddleJob of
    Kubeflow's training operator.

    Raises:
        UsageError: an option is not what Kubernetes takes, or the run's results would be lost.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Shows a text of many lines as one."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return yaml.dump_all(objects(manifest, options), Dumper=Dumper, sort_keys=False)


def objects(manifest: Manifest, options: PodOptions) -> tuple[Object, ...]:
    """Return the ConfigMap and the Job; see :func:`render`."""
    import yaml

    _check(manifest, options)
    if options.processes:
        options = replace(options, until=options.until or _TRAINING)
    made: dict[str, Any] = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    what = "-score" if options.score else f"-{options.until}" if options.until else ""
    name = f"{_dns_label(manifest.name)}{what}"
    made["metadata"]["name"] = name
    if options.namespace:
        made["metadata"]["namespace"] = options.namespace
    metadata = copy.deepcopy(made["metadata"])
    _fill_job(made, manifest, options)
    _fill_pod(made["spec"]["template"]["spec"], manifest, options, name)
    content = f"{json.dumps(manifest.resolved, indent=2)}\n"
    if len(content.encode()) > _CONFIG_MAP_BYTES:
        raise UsageError(
            f"the manifest has {len(content.encode()):,} bytes, and a ConfigMap holds 1 MiB",
            "Put the manifest on a volume, and adapt k8s/base/job.yaml to read it there.",
        )
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    if options.processes:
        made = _as_paddle_job(made, options.processes)
    return {**config, "data": {"manifest.json": content}}, made


def _check(manifest: Manifest, options: PodOptions) -> None:
    """Refuse what Kubernetes would refuse later, or what would end in nothing."""
    for option in ("memory", "storage"):
        value = getattr(options, option)
        if value is not None and not _QUANTITY.fullmatch(value):
            raise UsageError(
                f"--{option}: {value!r} is no quantity", "Give a number with a unit, such as 16Gi."
            )
    _check_names(options)
    if options.cpus is not None and options.cpus > _MOST_CPUS:
        raise UsageError(
            f"--cpus: {options.cpus}, at most {_MOST_CPUS}", "Ask for one node's CPUs."
        )
    if options.hours is not None and not 0 < options.hours <= _MOST_HOURS:
        raise UsageError(
            f"--hours: {options.hours}, more than 0 and at most {_MOST_HOURS}", "Such as 24."
        )
    # Also says which stages there are.
    select(stages_for((entries(manifest) or (manifest,))[0]), options.until)
    if options.score and (manifest.matrix or manifest.accuracy.shards == 1):
        raise UsageError(
            "--score: there is nothing to score in parts",
            "Give a manifest without a matrix, and set accuracy.shards.",
        )
    if options.processes:
        if options.score:
            raise UsageError(
                "--processes trains, and --score scores what was trained",
                "Render them one after the other.",
            )
        check_shared(manifest, options.processes)
    for code in (single.model.callable for single in entries(manifest) or (manifest,)):
        if code:
            raise UsageError(
                f"/model/callable: {code!r} is not in the image",
                "Build an image on this one with the package in it, and start from k8s/base.",
            )
    if not options.claim and not manifest.output.startswith("s3://"):
        raise UsageError(
            f"/output: {manifest.output!r} would be lost with the pod",
            "Give --set output=s3://BUCKET/PREFIX, or --claim with the name of a "
            "PersistentVolumeClaim to keep it on.",
        )


def _check_names(options: PodOptions) -> None:
    """Refuse names that only the cluster would refuse.

    Raises:
        UsageError: naming the option.
    """
    for option, pattern in _NAMES.items():
        value = getattr(options, option)
        if value is not None and not pattern.fullmatch(value):
            raise UsageError(
                f"--{option.replace('_', '-')}: {value[:80]!r} is no name in Kubernetes",
                "Names have small letters, digits and '-', and begin and end with a letter or a "
                "digit; an image is REGISTRY/NAME:TAG.",
            )


def _fill_job(made: dict[str, Any], manifest: Manifest, options: PodOptions) -> None:
    """Set what is the Job's and not the pod's."""
    spec = made["spec"]
    if options.hours is not None:
        spec["activeDeadlineSeconds"] = math.ceil(options.hours * 3600)
    if options.queue:
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = options.queue
        spec["suspend"] = True
    if pods := _pods(manifest, options):
        # One index that fails for good leaves the others running.
        retries = spec.pop("backoffLimit")
        spec["podFailurePolicy"]["rules"][0]["action"] = "FailIndex"
        indexed = {"completionMode": "Indexed", "completions": pods, "parallelism": pods}
        made["spec"] = {**indexed, "backoffLimitPerIndex": retries, **spec}


def _fill_pod(
    pod: dict[str, Any], manifest: Manifest, options: PodOptions, config_map: str
) -> None:
    """Set what is the pod's."""
    (container,) = pod["containers"]
    container["image"] = options.image or f"{container['image']}:{job.__version__}"
    if options.score:
        container["args"][0] = "score"
    elif options.until:
        container["args"] += ["--until", options.until]
    if _pods(manifest, options):
        which = "--shard" if options.score else "--index"
        container["args"] += [which, "$(JOB_COMPLETION_INDEX)"]
    grace = math.ceil(manifest.run.grace_seconds)
    pod["terminationGracePeriodSeconds"] = grace + _MARGIN_SECONDS
    asked = {"cpu": options.cpus, "memory": options.memory, "ephemeral-storage": options.storage}
    for limits in container["resources"].values():
        limits.update((key, str(value)) for key, value in asked.items() if value)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes["manifest"]["configMap"]["name"] = config_map
    if options.storage:
        volumes["work"]["emptyDir"]["sizeLimit"] = options.storage
    if options.claim:
        del volumes["work"]["emptyDir"]
        volumes["work"]["persistentVolumeClaim"] = {"claimName": options.claim}
        pod["securityContext"] |= {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}
    if options.secret:
        container["envFrom"] = [{"secretRef": {"name": options.secret}}]
    if options.service_account:
        pod["serviceAccountName"] = options.service_account


def _as_paddle_job(made: dict[str, Any], processes: int) -> dict[str, Any]:
    """Return what k8s/components/paddlejob makes of a Job: Paddle's launcher in each pod.

    The operator tells the launchers where the first pod is, and they number the processes.
    """
    spec = made["spec"]
    template = spec["template"]
    template["metadata"]["annotations"] = {"sidecar.istio.io/inject": "false"}
    del template["spec"]["restartPolicy"]
    template["spec"]["containers"][0] |= {"name": _PADDLE, "command": [*_LAUNCH]}
    policy = {
        "cleanPodPolicy": "None",
        "activeDeadlineSeconds": spec["activeDeadlineSeconds"],
        "ttlSecondsAfterFinished": spec["ttlSecondsAfterFinished"],
        # Restarts are counted over all pods, and one that ends has the others end.
        "backoffLimit": spec["backoffLimit"] * processes,
    }
    if "suspend" in spec:
        policy["suspend"] = spec["suspend"]
    workers = {"replicas": processes, "restartPolicy": "OnFailure", "template": template}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PaddleJob",
        "metadata": made["metadata"],
        "spec": {"runPolicy": policy, "paddleReplicaSpecs": {"Worker": workers}},
    }


def _pods(manifest: Manifest, options: PodOptions) -> int:
    """Return how many pods an Indexed Job has, 0 for a Job of one pod."""
    return manifest.accuracy.shards if options.score else len(manifest.matrix or ())


def _dns_label(name: str) -> str:
    """Return a manifest's name as Kubernetes takes names: lower case, digits, dashes.

    What had to be changed gets a digest: names that differ must not become one.
    """
    label = "-".join(re.findall("[a-z0-9]+", name.lower()))
    if label == name and len(label) <= _LONGEST_NAME:
        return label
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{label[: _LONGEST_NAME - _DIGEST - 1].strip('-')}-{digest}"
