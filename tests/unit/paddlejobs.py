"""What a PaddleJob of Kubeflow's training operator may hold, and what its admin is promised."""

from collections.abc import Callable, Mapping
from typing import Any

import jsonschema
import kubernetes_policies as jobs
import kubernetes_validate

Made = Mapping[str, Any]
COUNT = {"type": "integer", "minimum": 1}
# Of the operator's v1 CRD, all that stands around the pod's template.
SCHEMA = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v1"},
        "kind": {"const": "PaddleJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "required": ["paddleReplicaSpecs"],
            "additionalProperties": False,
            "properties": {
                "elasticPolicy": {"type": "object"},
                "runPolicy": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "activeDeadlineSeconds": COUNT,
                        "backoffLimit": COUNT,
                        "cleanPodPolicy": {"enum": ["All", "Running", "None"]},
                        "managedBy": {"type": "string"},
                        "schedulingPolicy": {"type": "object"},
                        "suspend": {"type": "boolean"},
                        "ttlSecondsAfterFinished": COUNT,
                    },
                },
                "paddleReplicaSpecs": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": False,
                    "properties": {
                        # With a Master the operator takes it for a parameter server's job.
                        "Worker": {
                            "type": "object",
                            "required": ["template"],
                            "additionalProperties": False,
                            "properties": {
                                "replicas": COUNT,
                                "restartPolicy": {
                                    "enum": ["Always", "OnFailure", "Never", "ExitCode"]
                                },
                                "template": {"type": "object"},
                            },
                        }
                    },
                },
            },
        },
    },
}


def validate(made: Made, version: str) -> None:
    """Check a PaddleJob, its pods as those of a Job of a Kubernetes version."""
    jsonschema.validate(made, SCHEMA)
    template = worker(made)["template"]
    spec = {**template["spec"], "restartPolicy": "OnFailure"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": made["metadata"],
        "spec": {"template": {**template, "spec": spec}},
    }
    kubernetes_validate.validate(job, version, strict=True)


def worker(made: Made) -> Mapping[str, Any]:
    found: Mapping[str, Any] = made["spec"]["paddleReplicaSpecs"]["Worker"]
    return found


def as_of_a_job(policy: Callable[[Made], bool]) -> Callable[[Made], bool]:
    """A promise of a Job, kept by a PaddleJob's pods."""

    def kept(made: Made) -> bool:
        return policy({**made, "spec": worker(made)})

    kept.__name__ = policy.__name__
    return kept


def is_a_paddle_job(made: Made) -> bool:
    return (made["apiVersion"], made["kind"]) == ("kubeflow.org/v1", "PaddleJob") and bool(
        made["metadata"]["name"]
    )


def is_started_by_paddles_launcher(made: Made) -> bool:
    """One process a pod; the operator tells the launcher how many pods there are, and where."""
    container = jobs.container({"spec": worker(made)})
    return (
        container["name"] == "paddle"
        and container["command"]
        == [
            *("tini", "--", "python", "-m", "paddle.distributed.launch"),
            *("--nproc_per_node", "1", "--log_dir", "/tmp/log", "job"),
        ]
        and container["args"][:2] == ["run", "manifest.json"]
        and container["args"][-2:] == ["--until", "qat"]
        and worker(made)["replicas"] > 1
    )


def is_tried_again_by_all_its_pods(made: Made) -> bool:
    """A pod that ends has its others end: each try is one restart of every pod."""
    tries, rest = divmod(made["spec"]["runPolicy"]["backoffLimit"], worker(made)["replicas"])
    return (
        worker(made)["restartPolicy"] == "OnFailure"
        and "restartPolicy" not in worker(made)["template"]["spec"]
        and (1 <= tries <= 6 and rest == 0)
    )


def ends_and_keeps_its_logs_for_a_while(made: Made) -> bool:
    policy = made["spec"]["runPolicy"]
    return (
        policy["activeDeadlineSeconds"] > 0
        and policy["ttlSecondsAfterFinished"] > 3600
        and policy["cleanPodPolicy"] == "None"
    )


def has_no_proxy_beside_it(made: Made) -> bool:
    annotations = worker(made)["template"]["metadata"]["annotations"]
    return bool(annotations["sidecar.istio.io/inject"] == "false")


def is_never_suspended_by_us(made: Made) -> bool:
    return "suspend" not in made["spec"]["runPolicy"] and "suspend" not in made["spec"]


EVERYWHERE: tuple[Callable[[Made], bool], ...] = (
    is_a_paddle_job,
    is_started_by_paddles_launcher,
    is_tried_again_by_all_its_pods,
    ends_and_keeps_its_logs_for_a_while,
    has_no_proxy_beside_it,
    is_never_suspended_by_us,
    *map(
        as_of_a_job,
        (
            jobs.is_found_by_its_label,
            jobs.never_shares_a_node,
            jobs.is_guaranteed_whole_cpus,
            jobs.is_restricted,
            jobs.has_no_token,
            jobs.knows_no_other_services,
            jobs.has_time_for_a_checkpoint,
            jobs.tells_its_last_word,
            jobs.runs_the_manifest_of_the_config_map,
            jobs.can_write_to_its_volumes_alone,
            jobs.scratch_is_local_and_used,
            jobs.volumes_fit_into_the_limit_of_the_disk,
        ),
    ),
)
BY_FEATURE = tuple(map(as_of_a_job, jobs.BY_FEATURE))
