"""`job k8s render`: a manifest as a Kubernetes Job."""

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import paddlejobs
import pytest
import yaml
from kubernetes_policies import BY_FEATURE, EVERYWHERE, VERSIONS, broken, lines, without
from sample_manifest import document

import job
from job.errors import UsageError
from job.kubernetes import PodOptions, objects, render
from job.manifest import Manifest, parse

POLICIES = (*EVERYWHERE, *BY_FEATURE)
MATRIX = [{"name": "one", "set": {"train.epochs": 1}}, {"name": "two", "set": {"train.epochs": 2}}]


def manifest(**changes: Any) -> Manifest:
    return parse(document(output="s3://bucket/tiny", **changes), "m.json", Path("/base"))


def rendered(given: Manifest | None = None, **options: Any) -> tuple[Any, Any]:
    config, made = objects(given or manifest(), PodOptions(**options))
    return config, made


def pod_of(made: Any) -> Any:
    return made["spec"]["template"]["spec"]


def test_newest_versions() -> None:
    assert len(VERSIONS) == 3
    assert all(tuple(map(int, version.split("."))) >= (1, 35, 0) for version in VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("matrix", [None, MATRIX])
def test_valid_in_the_newest_versions(version: str, matrix: Any) -> None:
    options: dict[str, Any] = {"queue": "q", "secret": "s", "service_account": "a"}
    for made in rendered(manifest(matrix=matrix), claim="c", **options):
        kubernetes_validate.validate(made, version, strict=True)


@pytest.mark.parametrize("matrix", [None, MATRIX])
def test_every_promise_is_kept(matrix: Any) -> None:
    _, made = rendered(manifest(matrix=matrix))
    assert broken(made, POLICIES) == []


@pytest.mark.parametrize("matrix", [None, MATRIX])
def test_no_line_can_go_without_breaking_a_promise(matrix: Any) -> None:
    _, made = rendered(manifest(matrix=matrix))
    idle = [path for path in lines(made) if not broken(without(made, path), POLICIES)]
    assert idle == []


def test_manifest_goes_with_defaults_and_overrides() -> None:
    source = parse(document(output="s3://bucket/x"), "m.json", Path("/base"), ["train.epochs=7"])
    config, made = rendered(source, namespace="team")
    sent = json.loads(config["data"]["manifest.json"])
    assert sent == source.resolved
    assert sent["train"]["epochs"] == 7
    (volume,) = [v for v in pod_of(made)["volumes"] if v["name"] == "manifest"]
    assert volume["configMap"]["name"] == config["metadata"]["name"] == "tiny"
    assert made["metadata"]["namespace"] == config["metadata"]["namespace"] == "team"


def test_yaml_is_what_the_objects_are() -> None:
    text = render(manifest(), PodOptions())
    assert tuple(yaml.safe_load_all(text)) == rendered()
    assert "\n  manifest.json: |\n    {\n" in text


def test_options() -> None:
    _, made = rendered(
        image="registry/job:1", cpus=8, memory="32Gi", storage="200Gi", hours=1.5, queue="gpuless"
    )
    pod = pod_of(made)
    container = pod["containers"][0]
    assert container["image"] == "registry/job:1"
    limits = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "200Gi"}
    assert container["resources"] == {"limits": limits, "requests": limits}
    assert pod["volumes"][0] == {"name": "work", "emptyDir": {"sizeLimit": "200Gi"}}
    assert made["spec"]["activeDeadlineSeconds"] == 5400
    assert made["spec"]["suspend"] is True
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpuless"
    assert broken(made, POLICIES) == []


def test_image_of_this_version_by_default() -> None:
    _, made = rendered()
    assert pod_of(made)["containers"][0]["image"] == f"job:{job.__version__}"


def test_claim_secret_and_role() -> None:
    source = parse(document(), "m.json", Path("/base"))
    options = {"claim": "work", "secret": "s3", "service_account": "role"}
    _, made = rendered(source, **options)
    pod = pod_of(made)
    assert pod["volumes"][0] == {"name": "work", "persistentVolumeClaim": {"claimName": "work"}}
    assert pod["securityContext"]["fsGroup"] == 1000
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert pod["serviceAccountName"] == "role"
    assert broken(made, POLICIES) == []


def test_matrix_is_an_indexed_job() -> None:
    _, made = rendered(manifest(matrix=MATRIX))
    spec = made["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 2
    assert "backoffLimit" not in spec
    (container,) = pod_of(made)["containers"]
    assert container["args"] == ["run", "manifest.json", "--index", "$(JOB_COMPLETION_INDEX)"]


def test_test_split_in_parts_is_an_indexed_job() -> None:
    whole = manifest(accuracy__shards=8)
    config, made = rendered(whole, score=True)
    assert made["metadata"]["name"] == config["metadata"]["name"] == "tiny-score"
    assert made["spec"]["completions"] == 8
    (container,) = pod_of(made)["containers"]
    assert container["args"] == ["score", "manifest.json", "--shard", "$(JOB_COMPLETION_INDEX)"]
    _, before = rendered(whole, until="int8")
    assert before["metadata"]["name"] == "tiny-int8"
    assert pod_of(before)["containers"][0]["args"][2:] == ["--until", "int8"]
    assert "completions" not in before["spec"]
    with pytest.raises(UsageError, match=r"--score: .*accuracy\.shards"):
        objects(manifest(), PodOptions(score=True))


PADDLE_POLICIES = (*paddlejobs.EVERYWHERE, *paddlejobs.BY_FEATURE)


@pytest.mark.parametrize("version", VERSIONS)
def test_several_processes_are_a_paddle_job(version: str) -> None:
    options: dict[str, Any] = {"queue": "q", "secret": "s", "service_account": "a", "cpus": 8}
    source = manifest(train__freeze_bn_stats=True)
    config, made = rendered(source, processes=4, **options)
    kubernetes_validate.validate(config, version, strict=True)
    paddlejobs.validate(made, version)
    assert made["metadata"]["name"] == config["metadata"]["name"] == "tiny-qat"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert made["spec"]["runPolicy"]["suspend"] is True
    assert broken(made, PADDLE_POLICIES) == []


def test_no_line_of_a_paddle_job_can_go() -> None:
    _, made = rendered(manifest(train__freeze_bn_stats=True), processes=2)
    idle = [path for path in lines(made) if not broken(without(made, path), PADDLE_POLICIES)]
    assert idle == []


def test_what_several_processes_cannot_train_is_not_sent() -> None:
    with pytest.raises(UsageError, match=r"(?s)\b3\b.*/train/batch_size\b.*\b64\b"):
        rendered(manifest(train__freeze_bn_stats=True), processes=3)
    with pytest.raises(UsageError, match=r"--processes .*--score"):
        rendered(manifest(accuracy__shards=2), processes=2, score=True)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("resnet50-v1", "resnet50-v1"),
        ("a" * 50, "a" * 50),
        # Different names must not become equal.
        ("ResNet50_v1.5--x.", "resnet50-v1-5-x-47a6d9"),
        ("resnet50.v1", "resnet50-v1-9ecee9"),
        ("a" * 49 + ".b" * 10, "a" * 43 + "-6e0f3f"),
        ("7", "7"),
    ],
)
def test_name(name: str, label: str) -> None:
    config, made = rendered(manifest(name=name))
    assert made["metadata"]["name"] == config["metadata"]["name"] == label


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, {"output": "runs/x"}, "/output: 'runs/x'"),
        ({"memory": "16"}, {}, "--memory: .*'16'"),
        ({"storage": "1.5Gi"}, {}, "--storage: .*'1.5Gi'"),
        ({"until": "nosuch"}, {}, "--until: .*'nosuch'"),
        ({"hours": float("nan")}, {}, "--hours: .*8760.*nan"),
        ({"hours": 1e300}, {}, "--hours: .*8760.*1e\\+300"),
        ({"cpus": 99999999999}, {}, "--cpus: .*1024.* 99999999999"),
        ({"namespace": "My_NS"}, {}, "--namespace: 'My_NS'"),
        ({"namespace": "a.b"}, {}, "--namespace: 'a.b'"),
        ({"secret": "A B"}, {}, "--secret: 'A B'"),
        ({"claim": "x_"}, {}, "--claim: 'x_'"),
        ({"service_account": "-"}, {}, "--service-account: '-'"),
        ({"queue": "x" * 64}, {}, "--queue: 'xxx"),
        ({"image": ""}, {}, "--image: ''"),
        ({"image": "a b"}, {}, "--image: 'a b'"),
        ({}, {"model__name": None, "model__callable": "a:b"}, "/model/callable: .*'a:b'"),
    ],
)
def test_refused(options: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    source = parse(document(**{"output": "s3://bucket/x", **changes}), "m.json", Path("/base"))
    with pytest.raises(UsageError, match=message):
        objects(source, PodOptions(**options))


def test_manifest_too_large_for_a_config_map() -> None:
    patterns = [f"{'x' * 200}{number}" for number in range(6000)]
    source = manifest(quantize__not_quant_pattern=patterns)
    with pytest.raises(UsageError, match=r"the manifest has 1,2\d\d,\d{3} bytes"):
        objects(source, PodOptions())
