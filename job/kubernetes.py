"""Renders a manifest as a Kubernetes Job, from ``k8s/base/job.yaml`` and the options.

``k8s/base/job.yaml`` is the only definition of the Job. The kustomize overlays use it too.
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
# Time after the grace period for the job to exit and for the kubelet to notice, in seconds.
_MARGIN_SECONDS = 35
# Pod names are NAME-INDEX-xxxxx and must fit into a DNS label of 63 characters.
_MAX_NAME = 50
_CHECKSUM_DIGITS = 6
_CONFIG_MAP_BYTES = 1 << 20
# The training operator requires this container name.
_PADDLE = "paddle"
_TRAINING = "qat"
_LAUNCH = (
    *("tini", "--", "python", "-m", "paddle.distributed.launch"),
    *("--nproc_per_node", "1", "--log_dir", "/tmp/log", "job"),  # noqa: S108
)
_MAX_CPUS, _MAX_HOURS = 1024, 24 * 365
# Namespaces and queues are DNS labels. Other names are DNS names with dots, up to 253 characters.
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
    """Options of ``job k8s render``; None keeps the value of ``k8s/base/job.yaml``.

    Attributes:
        image: image to run.
        namespace: namespace of the Job.
        cpus: number of whole CPUs.
        memory: memory limit, such as ``16Gi``.
        storage: limit of the pod's use of the node's disk, such as ``20Gi``.
        hours: time limit of the Job, in hours.
        queue: LocalQueue of Kueue, which decides when the Job starts.
        claim: PersistentVolumeClaim to mount at /work instead of scratch.
        secret: Secret whose keys become environment variables.
        service_account: ServiceAccount with a cloud role.
        until: last stage to run.
        score: render the Job that scores the shards of the test split.
        processes: number of pods that share quantization-aware training. Another Job runs the
            remaining stages.
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
    """Return the YAML of a ConfigMap with the manifest, and of the Job that runs the manifest.

    For a matrix, the result is an Indexed Job with one model per pod. If ``processes`` is set, the
    result is a PaddleJob for Kubeflow's training operator.

    Raises:
        UsageError: Kubernetes would reject an option, or the output would be deleted with the pod.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes multi-line strings as YAML block scalars."""

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
            f"the manifest has {len(content.encode()):,} bytes, but a ConfigMap is limited to "
            f"{_CONFIG_MAP_BYTES:,} bytes (1 MiB)",
            "Put the manifest on a volume, and change k8s/base/job.yaml to read it from there.",
        )
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    if options.processes:
        made = _as_paddle_job(made, options.processes)
    return {**config, "data": {"manifest.json": content}}, made


def _check(manifest: Manifest, options: PodOptions) -> None:
    """Reject options that Kubernetes would reject later, or that would produce no result."""
    for option in ("memory", "storage"):
        value = getattr(options, option)
        if value is not None and not _QUANTITY.fullmatch(value):
            raise UsageError(
                f"--{option}: expected a number with a unit, found {value!r}",
                "Write, for example, 16Gi or 500M.",
            )
    _check_names(options)
    if options.cpus is not None and options.cpus > _MAX_CPUS:
        raise UsageError(
            f"--cpus: expected at most {_MAX_CPUS}, found {options.cpus}",
            "Request at most the CPUs of one node.",
        )
    if options.hours is not None and not 0 < options.hours <= _MAX_HOURS:
        raise UsageError(
            f"--hours: expected more than 0 and at most {_MAX_HOURS}, found {options.hours}",
            "Write, for example, --hours 24.",
        )
    # Raises an error that lists the stages if --until names an unknown stage.
    select(stages_for((entries(manifest) or (manifest,))[0]), options.until)
    if options.score and (manifest.matrix or manifest.accuracy.shards == 1):
        raise UsageError(
            "--score: the manifest has a matrix, or accuracy.shards is 1",
            "Use a manifest without a matrix, and set accuracy.shards to the number of pods.",
        )
    if options.processes:
        if options.score:
            raise UsageError(
                "--processes and --score cannot be combined",
                "Render one Job with --processes for training, then one with --score.",
            )
        check_shared(manifest, options.processes)
    for code in (single.model.callable for single in entries(manifest) or (manifest,)):
        if code:
            raise UsageError(
                f"/model/callable: the image does not contain the code of {code!r}",
                "Build an image with the package, based on this image, and use k8s/base with it.",
            )
    if not options.claim and not manifest.output.startswith("s3://"):
        raise UsageError(
            f"/output: {manifest.output!r} is a local folder, which would be deleted with the pod",
            "Add --set output=s3://BUCKET/PREFIX, or --claim with the name of a "
            "PersistentVolumeClaim.",
        )


def _check_names(options: PodOptions) -> None:
    """Reject names that the cluster would reject.

    Raises:
        UsageError: a name is invalid; names the option.
    """
    for option, pattern in _NAMES.items():
        value = getattr(options, option)
        if value is not None and not pattern.fullmatch(value):
            raise UsageError(
                f"--{option.replace('_', '-')}: {value[:80]!r} is not a valid name in Kubernetes",
                "Use lower-case letters, digits and '-', with a letter or digit at both ends. An "
                "image is REGISTRY/NAME:TAG.",
            )


def _fill_job(made: dict[str, Any], manifest: Manifest, options: PodOptions) -> None:
    """Set the fields of the Job."""
    spec = made["spec"]
    if options.hours is not None:
        spec["activeDeadlineSeconds"] = math.ceil(options.hours * 3600)
    if options.queue:
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = options.queue
        spec["suspend"] = True
    if pods := _pods(manifest, options):
        # The other indexes continue if one index fails permanently.
        retries = spec.pop("backoffLimit")
        spec["podFailurePolicy"]["rules"][0]["action"] = "FailIndex"
        indexed = {"completionMode": "Indexed", "completions": pods, "parallelism": pods}
        made["spec"] = {**indexed, "backoffLimitPerIndex": retries, **spec}


def _fill_pod(
    pod: dict[str, Any], manifest: Manifest, options: PodOptions, config_map: str
) -> None:
    """Set the fields of the pod."""
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
    sizes = {"cpu": options.cpus, "memory": options.memory, "ephemeral-storage": options.storage}
    for limits in container["resources"].values():
        limits.update((key, str(value)) for key, value in sizes.items() if value)
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
    """Convert a Job to a PaddleJob, with Paddle's launcher in each pod.

    The result equals the output of k8s/components/paddlejob. The operator sets the address of the
    first pod, and the launchers assign ranks.
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
        # The limit counts the restarts of all pods, and the end of one pod ends the others.
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
    """Return the number of pods of an Indexed Job; 0 for a Job with one pod."""
    return manifest.accuracy.shards if options.score else len(manifest.matrix or ())


def _dns_label(name: str) -> str:
    """Convert a manifest's name to a DNS label: lower-case letters, digits and dashes.

    A checksum is appended to a converted name, so that different names remain different.
    """
    label = "-".join(re.findall("[a-z0-9]+", name.lower()))
    if label == name and len(label) <= _MAX_NAME:
        return label
    checksum = hashlib.sha256(name.encode()).hexdigest()[:_CHECKSUM_DIGITS]
    return f"{label[: _MAX_NAME - _CHECKSUM_DIGITS - 1].strip('-')}-{checksum}"
