"""Guarantees to cluster administrators about every Job; one function checks each guarantee."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate

from job.kubernetes.scratch import byte_count

Job = Mapping[str, Any]
VNNI = "feature.node.kubernetes.io/cpu-cpuid.AVX512VNNI"
AMX = "feature.node.kubernetes.io/cpu-cpuid.AMXINT8"
GRACE_SECONDS = 25
SECONDS_TO_END = 30
DNS_LABEL = re.compile(r"(?=.{1,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
NEVER_RETRIED = [2, 3, 4, 5]


def pod(job: Job) -> Mapping[str, Any]:
    found: Mapping[str, Any] = job["spec"]["template"]["spec"]
    return found


def container(job: Job) -> Mapping[str, Any]:
    (found,) = pod(job)["containers"]
    return dict(found)


def present(key: str) -> Mapping[str, Any]:
    return {"key": key, "operator": "In", "values": ["true"]}


def is_a_job(job: Job) -> bool:
    """Checks the name too: it and the host names of an Indexed Job are DNS labels."""
    last = job["spec"].get("completions", 1) - 1
    host = f"{job['metadata']['name']}-{last}"
    return (job["apiVersion"], job["kind"]) == ("batch/v1", "Job") and bool(DNS_LABEL.match(host))


def needs_vnni(job: Job) -> bool:
    node = pod(job)["affinity"]["nodeAffinity"]
    terms = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    # Terms are alternatives, so each must require VNNI.
    return bool(terms) and all(present(VNNI) in term["matchExpressions"] for term in terms)


def prefers_amx(job: Job) -> bool:
    node = pod(job)["affinity"]["nodeAffinity"]
    wanted = {"weight": 100, "preference": {"matchExpressions": [present(AMX)]}}
    return wanted in node["preferredDuringSchedulingIgnoredDuringExecution"]


def never_shares_a_node(job: Job) -> bool:
    """Checks that no node runs pods of two Jobs, in any namespace."""
    labels = job["spec"]["template"]["metadata"]["labels"]
    rules = pod(job)["affinity"]["podAntiAffinity"]
    (term,) = rules["requiredDuringSchedulingIgnoredDuringExecution"]
    ours = term["labelSelector"]["matchLabels"]
    return (
        term["topologyKey"] == "kubernetes.io/hostname"
        and term["namespaceSelector"] == {}
        and ours == {"app.kubernetes.io/name": "job"}
        and ours.items() <= labels.items()
    )


def is_found_by_its_label(job: Job) -> bool:
    return job["metadata"]["labels"]["app.kubernetes.io/name"] == "job"


def is_guaranteed_whole_cpus(job: Job) -> bool:
    resources = container(job)["resources"]
    limits = resources["limits"]
    return (
        limits.keys() == {"cpu", "memory", "ephemeral-storage"}
        and resources["requests"] == limits
        and str(limits["cpu"]).isdigit()
    )


def is_tried_again_after_crashes(job: Job) -> bool:
    spec = job["spec"]
    indexed = spec.get("completionMode") == "Indexed"
    return pod(job)["restartPolicy"] == "Never" and 1 <= spec[
        "backoffLimitPerIndex" if indexed else "backoffLimit"
    ] <= 6  # fmt: skip


def is_one_pod_or_one_for_each_model(job: Job) -> bool:
    spec = job["spec"]
    if "--index" not in container(job)["args"]:
        return not {"completions", "completionMode", "parallelism"} & spec.keys()
    return (
        spec["completionMode"] == "Indexed"
        and spec["completions"] >= spec["parallelism"] > 0
        and container(job)["args"][2:] == ["--index", "$(JOB_COMPLETION_INDEX)"]
    )


def is_not_tried_again_in_vain(job: Job) -> bool:
    indexed = job["spec"].get("completionMode") == "Indexed"
    codes = {"containerName": "job", "operator": "In", "values": NEVER_RETRIED}
    rule = {"action": "FailIndex" if indexed else "FailJob", "onExitCodes": codes}
    return container(job)["name"] == "job" and job["spec"]["podFailurePolicy"]["rules"][0] == rule


def eviction_is_not_counted(job: Job) -> bool:
    condition = {"type": "DisruptionTarget", "status": "True"}
    return {"action": "Ignore", "onPodConditions": [condition]} in job["spec"]["podFailurePolicy"][
        "rules"
    ]


def ends_and_is_cleaned_up(job: Job) -> bool:
    spec = job["spec"]
    return spec["activeDeadlineSeconds"] > 0 and spec["ttlSecondsAfterFinished"] > 3600


def is_restricted(job: Job) -> bool:
    """Checks Pod Security "restricted" and the read-only root file system."""
    own = container(job)["securityContext"]
    return (
        pod(job)["securityContext"]["runAsNonRoot"] is True
        and pod(job)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        and own["allowPrivilegeEscalation"] is False
        and own["capabilities"] == {"drop": ["ALL"]}
        and own["readOnlyRootFilesystem"] is True
    )


def has_no_token(job: Job) -> bool:
    return pod(job)["automountServiceAccountToken"] is False


def knows_no_other_services(job: Job) -> bool:
    return pod(job)["enableServiceLinks"] is False


def has_time_for_a_checkpoint(job: Job) -> bool:
    return int(pod(job)["terminationGracePeriodSeconds"]) >= GRACE_SECONDS + SECONDS_TO_END


def tells_its_last_word(job: Job) -> bool:
    own = container(job)
    return (own["terminationMessagePath"], own["terminationMessagePolicy"]) == (
        "/dev/termination-log",
        "FallbackToLogsOnError",
    )


def runs_the_manifest_of_the_config_map(job: Job) -> bool:
    (volume,) = [volume for volume in pod(job)["volumes"] if volume["name"] == "manifest"]
    mount = {
        "name": "manifest",
        "mountPath": "/work/manifest.json",
        "subPath": "manifest.json",
        "readOnly": True,
    }
    return (
        container(job)["args"][:2] == ["run", "manifest.json"]
        and bool(container(job)["image"])
        and bool(volume["configMap"]["name"])
        and mount in container(job)["volumeMounts"]
    )


def can_write_to_its_volumes_alone(job: Job) -> bool:
    writable = [m for m in container(job)["volumeMounts"] if not m.get("readOnly")]
    volumes = {volume["name"]: volume for volume in pod(job)["volumes"]}
    return {(m["name"], m["mountPath"]) for m in writable} == {
        ("work", "/work"),
        ("scratch", "/scratch"),
        ("tmp", "/tmp"),
    } and all(m["name"] in volumes for m in container(job)["volumeMounts"])


def scratch_is_local_and_used(job: Job) -> bool:
    """Checks that the cache is never on a claim, which may be on a network file system."""
    (scratch,) = [volume for volume in pod(job)["volumes"] if volume["name"] == "scratch"]
    variables = {entry["name"]: entry["value"] for entry in container(job)["env"]}
    return variables["JOB_SCRATCH"] == "/scratch" and bool({"emptyDir", "ephemeral"} & set(scratch))


def volumes_fit_into_the_limit_of_the_disk(job: Job) -> bool:
    """Checks that the kubelet does not evict a pod whose volumes are within their limits."""
    emptied = {v["name"]: v["emptyDir"] for v in pod(job)["volumes"] if "emptyDir" in v}
    logs = 1 << 30
    used = sum(byte_count(each["sizeLimit"]) for each in emptied.values())
    limit = byte_count(container(job)["resources"]["limits"]["ephemeral-storage"])
    sourced = all(len(volume) == 2 for volume in pod(job)["volumes"])
    return sourced and "tmp" in emptied and used + logs <= limit


def is_never_suspended_by_us(job: Job) -> bool:
    """Checks that applying the Job again does not end its pod; Kueue's webhook sets `suspend`."""
    return "suspend" not in job["spec"]


EVERYWHERE: tuple[Callable[[Job], bool], ...] = (
    is_a_job,
    is_found_by_its_label,
    never_shares_a_node,
    is_guaranteed_whole_cpus,
    is_tried_again_after_crashes,
    is_one_pod_or_one_for_each_model,
    is_not_tried_again_in_vain,
    eviction_is_not_counted,
    ends_and_is_cleaned_up,
    is_restricted,
    has_no_token,
    knows_no_other_services,
    has_time_for_a_checkpoint,
    tells_its_last_word,
    runs_the_manifest_of_the_config_map,
    can_write_to_its_volumes_alone,
    scratch_is_local_and_used,
    volumes_fit_into_the_limit_of_the_disk,
    is_never_suspended_by_us,
)
# Policies on labels of Node Feature Discovery. Components of clouds use other labels.
BY_FEATURE = (needs_vnni, prefers_amx)


def broken(job: Job, policies: tuple[Callable[[Job], bool], ...]) -> list[str]:
    """Return the names of the policies that a Job violates."""
    return [policy.__name__ for policy in policies if not _keeps(policy, job)]


def _keeps(policy: Callable[[Job], bool], job: Job) -> bool:
    try:
        return policy(job)
    except (KeyError, IndexError, TypeError, ValueError):
        return False  # The policy reads a missing key.


def lines(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every key and every item below a value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*path, key)
        yield from lines(item, (*path, key))


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy without the key or item at a path."""
    key, *rest = path
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copy[key] = without(copy[key], tuple(rest))
    else:
        del copy[key]
    return copy


# The three newest Kubernetes versions that the validator supports.
VERSIONS = sorted(
    {
        folder.name.split("-")[0].removeprefix("v")
        for folder in Path(kubernetes_validate.__file__).parent.glob("kubernetes-json-schema/v*")
    },
    key=lambda version: tuple(map(int, version.split("."))),
)[-3:]
