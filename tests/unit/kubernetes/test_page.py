"""The commands and documents of docs/kubernetes.md are valid, and its tables are complete."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import typer
import yaml
from kubernetes_policies import VERSIONS

from job.cli.main import app

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/kubernetes.md").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_documents_are_valid(version: str) -> None:
    documents = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
    assert [each["kind"] for each in documents] == ["Role", "ResourceQuota"]
    for each in documents:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_role_permits_the_commands() -> None:
    (role,) = [
        yaml.safe_load(text)
        for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        if "kind: Role" in text
    ]
    verbs = {kind: {*rule["verbs"]} for rule in role["rules"] for kind in rule["resources"]}
    # Server-side apply sends a patch; it creates a missing object with the same request.
    for kind in ("jobs", "configmaps", "paddlejobs"):
        assert {"get", "create", "patch", "delete"} <= verbs[kind]
    for kind in ("pods", "pods/log", "events"):
        assert verbs[kind] == {"get", "list", "watch"}
    assert "secrets" not in verbs


@pytest.mark.parametrize("page", ["README.md", "docs/kubernetes.md"])
def test_every_apply_is_server_side(page: str) -> None:
    """Without it, a manifest above 256 KiB does not fit into an annotation."""
    text = (ROOT / page).read_text()
    found = re.findall(r"kubectl apply -[-\w]+ \S+", text)
    other = [each for each in found if "--server-side" not in each]
    assert found
    assert other == []


def test_every_deletion_of_a_job_waits_for_its_pods() -> None:
    """Otherwise the next apply starts a second pod of the same run."""
    commands = re.findall(r"kubectl delete job [^\n`]*", PAGE)
    assert commands
    assert all("--cascade=foreground" in command for command in commands)


def test_options_exist() -> None:
    group = typer.main.get_command(app)
    render = group.commands["k8s"].commands["render"]  # type: ignore[attr-defined]
    ours = {name for option in render.params for name in option.opts}
    commands = re.findall(r"job k8s render ([^|\n`]*)", PAGE)
    shown = {word for command in commands for word in re.findall(r"(?<!\S)--[a-z-]+", command)}
    assert shown - ours == set()
    # Options of the tables' right columns.
    named = set(
        re.findall(r"`(--(?:cpus|memory|storage|hours|parallelism|toleration|queue))", PAGE)
    )
    assert len(named) == 7
    assert named - ours == set()


def test_all_components_are_listed() -> None:
    table = PAGE[PAGE.index("| kustomize component |") : PAGE.index("## Training in several")]
    listed = {
        name for row in table.splitlines() for name in re.findall(r"`([a-z0-9-]+)`", row[:40])
    }
    assert listed == {path.name for path in (ROOT / "k8s/components").iterdir()}


@pytest.mark.parametrize(
    "symptom",
    [
        "unbound immediate PersistentVolumeClaims",
        "had untolerated taint",
        "Insufficient memory",
        "exceeded quota",
        'serviceaccount "NAME" not found',
        "NotReady",
        "unchanged",
        "field is immutable",
        "maximum capacity",
        "DeadlineExceeded",
    ],
)
def test_symptom_has_a_row(symptom: str) -> None:
    table = PAGE[PAGE.index("| event or state |") :]
    rows = [row for row in table.splitlines() if symptom in row.split(" | ")[0]]
    assert len(rows) == 1
    assert len(rows[0].split(" | ")) == 3
