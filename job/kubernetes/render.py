"""Renders a manifest as a Kubernetes Job, from ``k8s/base/job.yaml`` and the options.

``k8s/base/job.yaml`` is the only definition of the Job. The kustomize overlays use it too.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import job
from job.errors import UsageError
from job.kubernetes.locations import with_uris
from job.kubernetes.options import PodOptions, check, pods_of, toleration
from job.kubernetes.scratch import set_scratch
from job.manifest import Manifest, entries

BASE = Path(__file__).parents[1] / "k8s" / "job.yaml"
# Time after the grace period for the job to exit and for the kubelet to notice, in seconds.
_MARGIN_SECONDS = 35
# The name of a Job is NAME-STAGE. It and the hosts NAME-STAGE-INDEX are DNS labels, which have at
# most 63 characters.
_MAX_NAME, _MAX_WITH_STAGE = 50, 58
# A PaddleJob's pods are NAME-STAGE-DIGEST-worker-N, and each has a Service, whose name is a label.
_MAX_PADDLE_NAME, _MAX_PADDLE_WITH_STAGE = 28, 39
_CHECKSUM_DIGITS = 6
# Two manifests with one name must never get equal ConfigMap names, so this digest is longer.
_CONTENT_DIGITS = 12
_CONFIG_MAP_BYTES = 1 << 20
# The training operator requires this container name.
_PADDLE = "paddle"
_TRAINING = "qat"
_LAUNCH = (
    *("tini", "--", "python", "-m", "paddle.distributed.launch"),
    *("--nproc_per_node", "1", "--log_dir", "/tmp/log", "job"),  # noqa: S108
)

Object = Mapping[str, Any]


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

    singles = entries(manifest) or (manifest,)
    check(manifest, singles, options)
    if options.processes:
        options = replace(options, until=options.until or _TRAINING)
    made: dict[str, Any] = yaml.safe_load(BASE.read_text(encoding="utf-8"))
    made["metadata"]["name"] = _name(manifest, options)
    if options.namespace:
        made["metadata"]["namespace"] = options.namespace
    config = _config_map(made["metadata"], manifest)
    _fill_job(made, manifest, options)
    pod = made["spec"]["template"]["spec"]
    set_scratch(pod, singles, options.storage)
    _fill_pod(pod, manifest, options, config["metadata"]["name"])
    if options.processes:
        made = _as_paddle_job(made, options.processes)
        # The cluster accepts a change of a PaddleJob's template, but the operator ignores it once
        # pods exist. Therefore a changed manifest is a new PaddleJob.
        made["metadata"]["name"] = config["metadata"]["name"]
    return config, made


def _name(manifest: Manifest, options: PodOptions) -> str:
    """Return the name of the Job: the manifest's name and what the Job does."""
    # Names of stages can contain underscores, which are not allowed in a DNS label.
    what = "score" if options.score else (options.until or "").replace("_", "-")
    ending = f"-{what}" if what else ""
    short, whole = _MAX_NAME, _MAX_WITH_STAGE
    if options.processes:
        short, whole = _MAX_PADDLE_NAME, _MAX_PADDLE_WITH_STAGE
    longest = min(short, whole - len(ending))
    return f"{_dns_label(manifest.name, longest, for_paddle_job=bool(options.processes))}{ending}"


def _config_map(metadata: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Return the ConfigMap with the manifest.

    Its name contains a digest of its content. Therefore the template of a Job differs if the
    manifest differs, and the cluster rejects the change of an existing Job. With a fixed name, a
    finished Job would keep its old result, and the next retry of a running Job would mount the
    changed manifest.

    Args:
        metadata: metadata of the Job.
        manifest: the manifest.

    Raises:
        UsageError: the manifest is larger than a ConfigMap can be.
    """
    content = f"{json.dumps(with_uris(manifest), indent=2)}\n"
    size = len(content.encode())
    if size > _CONFIG_MAP_BYTES:
        raise UsageError(
            f"the manifest has {size:,} bytes, but a ConfigMap is limited to "
            f"{_CONFIG_MAP_BYTES:,} bytes (1 MiB)",
            "Put the manifest on a volume, and change k8s/base/job.yaml to read it from there.",
        )
    digest = hashlib.sha256(content.encode()).hexdigest()[:_CONTENT_DIGITS]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**copy.deepcopy(metadata), "name": f"{metadata['name']}-{digest}"},
        "immutable": True,
        "data": {"manifest.json": content},
    }


def _fill_job(made: dict[str, Any], manifest: Manifest, options: PodOptions) -> None:
    """Set the fields of the Job."""
    spec = made["spec"]
    if options.hours is not None:
        spec["activeDeadlineSeconds"] = math.ceil(options.hours * 3600)
    if options.queue:
        # Kueue's webhook sets `suspend` on Jobs with this label. A printed `suspend: true` would
        # end the pod of a running Job when the same Job is applied again.
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = options.queue
    if pods := pods_of(manifest, options):
        # The other indexes continue if one index fails permanently.
        retries = spec.pop("backoffLimit")
        spec["podFailurePolicy"]["rules"][0]["action"] = "FailIndex"
        together = min(pods, options.parallelism or pods)
        indexed = {"completionMode": "Indexed", "completions": pods, "parallelism": together}
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
    if pods_of(manifest, options):
        which = "--shard" if options.score else "--index"
        container["args"] += [which, "$(JOB_COMPLETION_INDEX)"]
    grace = math.ceil(manifest.run.grace_seconds)
    pod["terminationGracePeriodSeconds"] = grace + _MARGIN_SECONDS
    sizes = {"cpu": options.cpus, "memory": options.memory}
    for limits in container["resources"].values():
        limits.update((key, str(value)) for key, value in sizes.items() if value)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes["manifest"]["configMap"]["name"] = config_map
    if options.claim:
        del volumes["work"]["emptyDir"]
        volumes["work"]["persistentVolumeClaim"] = {"claimName": options.claim}
        pod["securityContext"] |= {"fsGroup": 1000, "fsGroupChangePolicy": "OnRootMismatch"}
    if options.tolerations:
        pod["tolerations"] = [toleration(text) for text in options.tolerations]
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
    workers = {"replicas": processes, "restartPolicy": "OnFailure", "template": template}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PaddleJob",
        "metadata": made["metadata"],
        "spec": {"runPolicy": policy, "paddleReplicaSpecs": {"Worker": workers}},
    }


def _dns_label(name: str, longest: int, *, for_paddle_job: bool) -> str:
    """Convert a manifest's name to a DNS label: lower-case letters, digits and dashes.

    A checksum is appended to a converted name, so that different names remain different.

    Args:
        name: the manifest's name.
        longest: the largest length of the label.
        for_paddle_job: whether the label begins with a letter. The training operator creates a
            Service with the name of each pod, and rejects names that begin with a digit.
    """
    label = "-".join(re.findall("[a-z0-9]+", name.lower()))
    if for_paddle_job and not label[:1].isalpha():
        label = f"job-{label}"
    if label == name and len(label) <= longest:
        return label
    checksum = hashlib.sha256(name.encode()).hexdigest()[:_CHECKSUM_DIGITS]
    return f"{label[: longest - _CHECKSUM_DIGITS - 1].strip('-')}-{checksum}"
