"""Each component and overlay of k8s/ is built by kustomize, is valid, and keeps its guarantees."""

import copy
import json
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import paddlejobs
import pytest
import yaml
from kubernetes_policies import (
    AMX,
    BY_FEATURE,
    EVERYWHERE,
    VERSIONS,
    broken,
    container,
    lines,
    pod,
    present,
    without,
)

import job
from job.kubernetes import PodOptions, objects
from job.manifest import load

ROOT = Path(__file__).parents[3]
KUSTOMIZE = (
    ["kustomize", "build"]
    if shutil.which("kustomize")
    else ["kubectl", "kustomize"]
    if shutil.which("kubectl")
    else None
)
COMPONENTS = sorted(path.name for path in (ROOT / "k8s/components").iterdir())
OVERLAYS = sorted(path.name for path in (ROOT / "k8s/overlays").iterdir())
CLOUDS = ("aks", "eks", "gke")

pytestmark = pytest.mark.skipif(
    KUSTOMIZE is None, reason="neither kustomize nor kubectl is installed"
)


@cache
def build(folder: Path) -> list[Any]:
    done = subprocess.run([*(KUSTOMIZE or ()), folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def the_job(documents: list[Any]) -> Any:
    (found,) = [made for made in documents if made["kind"] in ("Job", "PaddleJob")]
    return copy.deepcopy(found)


def validate(made: Any, version: str) -> None:
    if made["kind"] == "PaddleJob":
        paddlejobs.validate(made, version)
    else:
        kubernetes_validate.validate(made, version, strict=True)


@pytest.fixture(scope="module")
def base() -> Any:
    return the_job(build(ROOT / "k8s/base"))


def composed(folder: Path, *names: str) -> list[Any]:
    """Build the base with components."""
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../k8s/base"],
        "components": [f"../k8s/components/{name}" for name in names],
    }
    (folder / "made").mkdir()
    (folder / "made/kustomization.yaml").write_text(yaml.safe_dump(made))
    return build(folder / "made")


def has_credentials_from_a_secret(made: Any) -> bool:
    return bool(container(made)["envFrom"] == [{"secretRef": {"name": "s3-credentials"}}])


def has_a_role(made: Any) -> bool:
    return bool(pod(made)["serviceAccountName"] == "job")


def has_a_token_for_the_role_alone(made: Any) -> bool:
    environment = {entry["name"]: entry["value"] for entry in container(made)["env"]}
    (volume,) = [volume for volume in pod(made)["volumes"] if volume["name"] == "sts"]
    (source,) = volume["projected"]["sources"]
    mount = {"name": "sts", "mountPath": "/var/run/secrets/sts", "readOnly": True}
    return (
        environment.keys() == {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "JOB_SCRATCH"}
        and environment["AWS_ROLE_ARN"].startswith("arn:aws:iam::")
        and environment["AWS_WEB_IDENTITY_TOKEN_FILE"] == "/var/run/secrets/sts/token"  # noqa: S105
        and mount in container(made)["volumeMounts"]
        and source["serviceAccountToken"]
        == {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}
    )


def keeps_results_on_a_claim(made: Any) -> bool:
    context = pod(made)["securityContext"]
    work = pod(made)["volumes"][0]
    return bool(
        (work["name"], work["persistentVolumeClaim"]["claimName"][:4]) == ("work", "job-")
        and (context["fsGroup"], context["fsGroupChangePolicy"]) == (1000, "OnRootMismatch")
    )


def has_scratch_of_its_own(made: Any) -> bool:
    template = pod(made)["volumes"][1]["ephemeral"]["volumeClaimTemplate"]["spec"]
    return bool(
        container(made)["resources"]["limits"]["ephemeral-storage"] == "4Gi"
        and pod(made)["securityContext"]["fsGroup"] == 1000
        and template["accessModes"] == ["ReadWriteOncePod"]
        and template["resources"] == {"requests": {"storage": "200Gi"}}
    )


def needs_amx(made: Any) -> bool:
    node = pod(made)["affinity"]["nodeAffinity"]
    (term,) = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return present(AMX) in term["matchExpressions"]


def needs_machines_of_the_documented_families(cloud: str) -> Any:
    """Return a policy on a node label of the cloud; the preferred machines have AMX.

    The table of families in docs/kubernetes.md is the reference.
    """
    key, vnni, amx = DOCUMENTED[cloud]

    def policy(made: Any) -> bool:
        node = pod(made)["affinity"]["nodeAffinity"]
        (term,) = node["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        (choice,) = node["preferredDuringSchedulingIgnoredDuringExecution"]
        (needed,), (wanted,) = term["matchExpressions"], choice["preference"]["matchExpressions"]
        return bool(
            needed["key"] == wanted["key"] == key
            and needed["operator"] == wanted["operator"] == "In"
            and choice["weight"] == 100
            and families(needed["values"]).keys() == {*vnni, *amx}
            and families(wanted["values"]).keys() == {*amx}
            and {*wanted["values"]} <= {*needed["values"]}
            and (cloud == "gke" or all(n >= 6 for n in families(needed["values"]).values()))
        )

    return policy


def families(machines: list[str]) -> dict[str, int]:
    """Return the number of sizes of each family, such as c6i, Dsv5 or n2."""
    size = r"Standard_D(\d+)s_v(?P<azure>\d)|(?P<amazon>\w+)\.[\w-]+|(?P<google>\w+)"
    found = [re.fullmatch(size, machine) for machine in machines]
    matched = [match for match in found if match]
    assert len(matched) == len(machines)
    azure = [f"Dsv{match['azure']}" for match in matched if match["azure"]]
    others = [match["amazon"] or match["google"] for match in matched if not match["azure"]]
    return dict(Counter(azure + others))


def waits_for_kueue(made: Any) -> bool:
    queued = made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    return bool(queued)


def is_placed_by_volcano(made: Any) -> bool:
    queued = made["spec"]["template"]["metadata"]["annotations"]["scheduling.volcano.sh/queue-name"]
    return bool(pod(made)["schedulerName"] == "volcano" and queued)


def writes_to_s3(made: Any) -> bool:
    option, value = container(made)["args"][2:4]
    return bool(option == "--set" and re.fullmatch(r"output=s3://[a-z-]+/.+", value))


def tolerates_a_taint(made: Any) -> bool:
    taint = {"key": "dedicated", "operator": "Equal", "value": "job", "effect": "NoSchedule"}
    return bool(pod(made)["tolerations"] == [taint])


def stands_in_its_namespace(made: Any) -> bool:
    return bool(made["metadata"]["namespace"] == "job")


TABLE = r"^\| (GKE|EKS|AKS) \| `(.*)` \| (.*) \| (.*) \|$"
DOCUMENTED = {
    cloud.lower(): (key, vnni.split(", "), amx.split(", "))
    for cloud, key, vnni, amx in re.findall(
        TABLE, (ROOT / "docs/kubernetes.md").read_text(), re.MULTILINE
    )
}
PROMISES: dict[str, tuple[Any, ...]] = {
    "aks": (needs_machines_of_the_documented_families("aks"),),
    "amx": (needs_amx,),
    "claim": (keeps_results_on_a_claim,),
    "eks": (needs_machines_of_the_documented_families("eks"),),
    "ephemeral-volume": (has_scratch_of_its_own,),
    "gke": (needs_machines_of_the_documented_families("gke"),),
    "irsa": (has_a_role,),
    "kueue": (waits_for_kueue,),
    "namespace": (stands_in_its_namespace,),
    "paddlejob": (),
    "s3-output": (writes_to_s3,),
    "s3-secret": (has_credentials_from_a_secret,),
    "tolerations": (tolerates_a_taint,),
    "volcano": (is_placed_by_volcano,),
    "web-identity": (has_a_role, has_a_token_for_the_role_alone),
}


def policies_with(*components: str) -> tuple[Any, ...]:
    if "paddlejob" in components:
        others = (PROMISES[name] for name in components if name != "paddlejob")
        promises = (paddlejobs.as_of_a_job(policy) for each in others for policy in each)
        return (*paddlejobs.EVERYWHERE, *paddlejobs.BY_FEATURE, *promises)
    feature = () if set(components) & set(CLOUDS) else BY_FEATURE
    return (*EVERYWHERE, *feature, *(p for name in components for p in PROMISES[name]))


def components_of(overlay: str) -> list[str]:
    text = (ROOT / "k8s/overlays" / overlay / "kustomization.yaml").read_text()
    return [Path(path).name for path in yaml.safe_load(text)["components"]]


def test_render_and_kustomize_start_from_the_same_job(base: Any) -> None:
    manifest = load(str(ROOT / "manifests/digits.json"), ["output=s3://bucket/digits"])
    config, made = objects(manifest, PodOptions())
    (volume,) = [each for each in pod(base)["volumes"] if each["name"] == "manifest"]
    assert volume["configMap"]["name"].startswith("manifest-")  # and a hash of its content
    volume["configMap"]["name"] = config["metadata"]["name"]
    made["metadata"]["name"] = base["metadata"]["name"]
    assert made == base


def test_render_and_kustomize_make_the_same_paddle_job() -> None:
    documents = build(ROOT / "k8s/overlays/paddlejob")
    (config,) = [each for each in documents if each["kind"] == "ConfigMap"]
    found = the_job(documents)
    manifest = load(str(ROOT / "k8s/overlays/paddlejob/manifest.json"))
    sent, made = objects(manifest, PodOptions(processes=4, claim="job-shared"))
    volumes = paddlejobs.worker(found)["template"]["spec"]["volumes"]
    (volume,) = [each for each in volumes if each["name"] == "manifest"]
    # kustomize renames the ConfigMap in a PaddleJob only because of names.yaml.
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    volume["configMap"]["name"] = sent["metadata"]["name"]
    found["metadata"]["name"] = made["metadata"]["name"]
    assert made == found


@pytest.mark.parametrize(
    ("folder", "changes"), [("base", {}), ("overlays/paddlejob", {"freeze_bn_stats": True})]
)
def test_the_demo_is_the_shipped_one(folder: str, changes: dict[str, Any]) -> None:
    path = ROOT / "k8s" / folder / "manifest.json"
    ours, shipped = (
        json.loads(each.read_text()) for each in (path, ROOT / "manifests/digits.json")
    )
    schema = path.parent / ours.pop("$schema")
    assert schema.resolve() == ROOT / "schemas/manifest.schema.json"
    del shipped["$schema"]
    shipped["train"] |= changes
    assert ours == shipped


def test_image_of_this_version(base: Any) -> None:
    assert container(base)["image"] == f"job:{job.__version__}"


def test_base_keeps_every_promise(base: Any) -> None:
    assert broken(base, policies_with()) == []


def test_each_component_has_promises() -> None:
    assert list(PROMISES) == COMPONENTS


@pytest.mark.parametrize("name", COMPONENTS)
def test_component(name: str, base: Any, tmp_path: Path) -> None:
    documents = composed(tmp_path, name)
    for made in documents:
        for version in VERSIONS:
            validate(made, version)
    made, policies = the_job(documents), policies_with(name)
    assert made != base
    assert broken(made, policies) == []
    # Removing any line of the base or the component breaks a guarantee.
    families_listed = ("matchExpressions", 0, "values")
    idle = [path for path in lines(made) if not broken(without(made, path), policies)]
    # A shorter list of machine types is valid.
    assert [path for path in idle if name not in CLOUDS or path[-4:-1] != families_listed] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay(name: str) -> None:
    documents = build(ROOT / "k8s/overlays" / name)
    for made in documents:
        for version in VERSIONS:
            validate(made, version)
    assert broken(the_job(documents), policies_with(*components_of(name))) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_keeps_its_result(name: str) -> None:
    made = the_job(build(ROOT / "k8s/overlays" / name))
    if made["kind"] == "PaddleJob":
        made = {**made, "spec": paddlejobs.worker(made)}
    on_claim = any("persistentVolumeClaim" in volume for volume in pod(made)["volumes"])
    assert on_claim or writes_to_s3(made)


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay_prints_an_immutable_config_map_before_the_job(name: str) -> None:
    documents = build(ROOT / "k8s/overlays" / name)
    kinds = [made["kind"] for made in documents]
    (config,) = [made for made in documents if made["kind"] == "ConfigMap"]
    assert config["immutable"] is True
    assert kinds.index("ConfigMap") < len(kinds) - 1
    assert kinds[-1] in ("Job", "PaddleJob")


def test_overlays_can_be_applied_one_after_the_other() -> None:
    """The spec of a claim cannot change, so claims of one name are equal."""
    claims: dict[str, Any] = {}
    for name in OVERLAYS:
        for made in build(ROOT / "k8s/overlays" / name):
            if made["kind"] == "PersistentVolumeClaim":
                assert claims.setdefault(made["metadata"]["name"], made) == made
    assert len(claims) == 2


COMBINED = [
    ("kueue", "tolerations", "paddlejob"),
    ("volcano", "claim", "paddlejob"),
    ("s3-output", "web-identity", "ephemeral-volume", "paddlejob"),
    ("s3-output", "s3-secret", "tolerations", "kueue", "eks"),
    ("s3-output", "web-identity", "volcano", "gke"),
]


@pytest.mark.parametrize("names", COMBINED, ids="+".join)
def test_components_combine(names: tuple[str, ...], tmp_path: Path) -> None:
    """Each component keeps its promises next to the others."""
    documents = composed(tmp_path, *names)
    for made in documents:
        validate(made, VERSIONS[-1])
    made = the_job(documents)
    if "paddlejob" in names and "kueue" in names:
        assert waits_for_kueue(made)
        names = tuple(name for name in names if name != "kueue")
    if "paddlejob" in names and "volcano" in names:
        template = paddlejobs.worker(made)["template"]
        assert is_placed_by_volcano({"spec": {"template": template}})
    assert broken(made, policies_with(*names)) == []


def test_namespace_admits_only_what_is_restricted(tmp_path: Path) -> None:
    (found,) = [made for made in composed(tmp_path, "namespace") if made["kind"] == "Namespace"]
    labels = found["metadata"]["labels"]
    assert found["metadata"]["name"] == "job"
    assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")}
    assert set(labels.values()) == {"restricted"}


@pytest.mark.parametrize("name", ["irsa", "web-identity"])
def test_roles_come_without_the_apis_token(name: str, tmp_path: Path) -> None:
    (found,) = [m for m in composed(tmp_path, name) if m["kind"] == "ServiceAccount"]
    assert found["automountServiceAccountToken"] is False
    annotations = found["metadata"].get("annotations", {})
    assert ("eks.amazonaws.com/role-arn" in annotations) == (name == "irsa")
