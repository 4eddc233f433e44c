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
from job.manifest import Manifest, entries, parse
from job.uri import S3Uri

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
    assert volume["configMap"]["name"] == config["metadata"]["name"]
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
    limits = {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "204Gi"}
    assert container["resources"] == {"limits": limits, "requests": limits}
    assert pod["volumes"][1] == {"name": "scratch", "emptyDir": {"sizeLimit": "200Gi"}}
    assert made["spec"]["activeDeadlineSeconds"] == 5400
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
    assert made["metadata"]["name"] == config["metadata"]["name"].rpartition("-")[0] == "tiny-score"
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
    assert made["metadata"]["name"] == config["metadata"]["name"]
    assert made["metadata"]["name"].startswith("tiny-qat-")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert broken(made, PADDLE_POLICIES) == []


def test_no_line_of_a_paddle_job_can_go() -> None:
    _, made = rendered(manifest(train__freeze_bn_stats=True), processes=2)
    idle = [path for path in lines(made) if not broken(without(made, path), PADDLE_POLICIES)]
    assert idle == []


def test_what_several_processes_cannot_train_is_not_sent() -> None:
    with pytest.raises(UsageError, match=r"(?s)\b3\b.*/train/batch_size\b.*\b16\b"):
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
    assert made["metadata"]["name"] == config["metadata"]["name"].rpartition("-")[0] == label


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, {"output": "runs/x"}, "/output: 'runs/x'"),
        ({}, {"storage__scratch": "/data"}, "/storage/scratch: .*/scratch.*'/data'"),
        ({}, {"storage__scratch": "/scratchy"}, "/storage/scratch"),
        ({"parallelism": 2}, {}, "--parallelism"),
        ({"tolerations": ("a b",)}, {}, "--toleration: 'a b'"),
        ({"tolerations": ("a=b:Never",)}, {}, "--toleration: 'a=b:Never'"),
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
        *(
            ({"image": image}, {}, f"--image: '{image}'")
            for image in ("a b", "r.io/Job:1", "job:", "job:a:b", "a//b", "job@sha256:abc", "/a")
        ),
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


def test_a_changed_manifest_changes_the_template() -> None:
    """The cluster rejects a change of an existing Job's template, so no old result is kept."""
    pairs = [rendered(manifest(matrix=matrix)) for matrix in (MATRIX, MATRIX[1:])]
    (first, first_job), (second, second_job) = pairs
    assert first_job["metadata"]["name"] == second_job["metadata"]["name"]
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert pod_of(first_job) != pod_of(second_job)
    # The same manifest gives the same documents, so that applying them again changes nothing.
    assert rendered(manifest(matrix=MATRIX)) == pairs[0]


@pytest.mark.parametrize("options", [{}, {"processes": 2}])
def test_the_config_map_is_immutable_and_comes_first(options: dict[str, Any]) -> None:
    source = manifest(train__freeze_bn_stats=True)
    config, made = yaml.safe_load_all(render(source, PodOptions(**options)))
    assert (config["kind"], config["immutable"]) == ("ConfigMap", True)
    assert made["kind"] in ("Job", "PaddleJob")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"data__root": "images", "data__train_dir": "train"},
            ["s3://jobs/p/w.pdparams", "s3://jobs/p/images"],
        ),
        ({"data__root": "s3://other/i"}, ["s3://jobs/p/w.pdparams", "s3://other/i"]),
        ({"data__root": "/data"}, ["s3://jobs/p/w.pdparams", "/data"]),
        ({"data__root": None}, ["s3://jobs/p/w.pdparams", "s3://jobs/p"]),
    ],
)
def test_relative_paths_of_a_manifest_from_s3(changes: dict[str, Any], found: list[str]) -> None:
    """The pod reads the manifest from a ConfigMap, so relative paths must become URIs."""
    matrix = [
        {"name": "one", "set": {"model.weights": "one.pdparams"}},
        {"name": "two", "set": {"/model/weights": "s3://other/two.pdparams"}},
        {"name": "three", "set": {"model": {**document()["model"], "weights": "three.pdparams"}}},
    ]
    given = document(
        output="s3://bucket/tiny", model__weights="w.pdparams", matrix=matrix, **changes
    )
    source = parse(given, "s3://jobs/p/m.json", Path("/base"), prefix=S3Uri("jobs", "p"))
    config, _ = rendered(source)
    in_pod = parse(json.loads(config["data"]["manifest.json"]), "m.json", Path("/work"))
    assert [in_pod.model.weights, in_pod.data.root] == found
    assert [single.model.weights for single in entries(in_pod)] == [
        "s3://jobs/p/one.pdparams",
        "s3://other/two.pdparams",
        "s3://jobs/p/three.pdparams",
    ]
    # A manifest from this machine is unchanged: its relative paths start at /work.
    config, _ = rendered(parse(given, "m.json", Path("/base")))
    assert json.loads(config["data"]["manifest.json"])["model"]["weights"] == "w.pdparams"


IN_S3 = {"data__root": "s3://bucket/images", "data__train_dir": "train"}


@pytest.mark.parametrize(
    ("changes", "gib"),
    [
        # The cache with 2% for each of 3 processes, 50,256 images of 12 KiB, and 20 GiB.
        (IN_S3, 42),
        ({**IN_S3, "storage__cache_gib": 100, "data__workers": 9}, 141),
        ({}, 21),
        ({"data": {"format": "synthetic"}, "train__max_iters": 0}, 20),
        ({**IN_S3, "model__input_shape": [3, 224, 224]}, 70),
    ],
)
def test_scratch_holds_what_the_manifest_allows(changes: dict[str, Any], gib: int) -> None:
    _, made = rendered(manifest(**changes))
    volumes = {volume["name"]: volume for volume in pod_of(made)["volumes"]}
    assert volumes["scratch"] == {"name": "scratch", "emptyDir": {"sizeLimit": f"{gib}Gi"}}
    assert broken(made, POLICIES) == []


def test_test_images_on_this_machine_are_counted(tmp_path: Path) -> None:
    """50,000 images of 588 KiB take 28 GiB, and 20 GiB are for other files."""
    lists = {"format": "imagenet_list", "root": "set", "train_list": "t.txt", "val_list": "v.txt"}
    given = document(output="s3://bucket/tiny", data=lists, model__input_shape=[3, 224, 224])
    sizes = []
    for images in (None, 10, 100_000):
        if images is not None:
            (tmp_path / "set").mkdir(exist_ok=True)
            (tmp_path / "set" / "v.txt").write_text("a.jpg 0\n" * images)
        _, made = rendered(parse(given, "m.json", tmp_path))
        volumes = {volume["name"]: volume for volume in pod_of(made)["volumes"]}
        sizes.append(volumes["scratch"]["emptyDir"]["sizeLimit"])
    assert sizes == ["49Gi", "21Gi", "77Gi"]


def test_scratch_is_not_on_the_claim() -> None:
    source = parse(document(**IN_S3), "m.json", Path("/base"))
    _, made = rendered(source, claim="shared")
    volumes = {volume["name"]: volume for volume in pod_of(made)["volumes"]}
    # No packed images, because the output is on the claim.
    assert volumes["scratch"]["emptyDir"] == {"sizeLimit": "42Gi"}
    assert "persistentVolumeClaim" in volumes["work"]
    assert broken(made, POLICIES) == []


def test_a_cache_larger_than_the_scratch_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--storage: .*22Gi.*/storage/cache_gib is 20.*20Gi"):
        rendered(manifest(**IN_S3), storage="20Gi")
    rendered(manifest(**IN_S3, storage__cache_gib=10), storage="20Gi")
    rendered(manifest(), storage="5Gi")


def test_parallelism_is_limited() -> None:
    _, made = rendered(manifest(matrix=MATRIX), parallelism=1)
    assert (made["spec"]["completions"], made["spec"]["parallelism"]) == (2, 1)
    _, made = rendered(manifest(matrix=MATRIX), parallelism=9)
    assert (made["spec"]["completions"], made["spec"]["parallelism"]) == (2, 2)
    assert broken(made, POLICIES) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_tolerations(version: str) -> None:
    _, made = rendered(tolerations=("a=b:NoSchedule", "example.com/c:NoExecute", "d=e", "f"))
    kubernetes_validate.validate(made, version, strict=True)
    assert pod_of(made)["tolerations"] == [
        {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"},
        {"key": "example.com/c", "operator": "Exists", "effect": "NoExecute"},
        {"key": "d", "operator": "Equal", "value": "e"},
        {"key": "f", "operator": "Exists"},
    ]


def test_a_paddle_job_never_begins_with_a_digit() -> None:
    """The operator rejects such a name."""
    made = [
        rendered(manifest(name=name, train__freeze_bn_stats=True), processes=2)[1]
        for name in ("7", "job-7", "a7")
    ]
    names = [each["metadata"]["name"] for each in made]
    assert all(name[0].isalpha() for name in names)
    assert len(set(names)) == 3
    assert [name.rpartition("-")[0] for name in names[1:]] == ["job-7-qat", "a7-qat"]


def test_a_changed_manifest_is_a_new_paddle_job() -> None:
    """The operator ignores a change of an existing PaddleJob's template."""
    changes: dict[str, Any] = {"train__freeze_bn_stats": True, "name": "a" * 60}
    one, two = (
        rendered(manifest(**changes, train__epochs=n), processes=8, until="calibrate")[1]
        for n in (1, 2)
    )
    assert one["metadata"]["name"] != two["metadata"]["name"]
    assert len(f"{one['metadata']['name']}-worker-999") <= 63
