"""The documentation agrees with the code: files, functions, layers, targets, versions."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import job

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
OURS = r"(?:job|tests|schemas|manifests|k8s|docs)/[A-Za-z0-9_./-]+"


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(rf"`({OURS})`", text))
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    linked = {link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", prose)}
    paths = {ROOT / name for name in named}
    paths |= {(ROOT / page).parent / link for link in linked if link and "://" not in link}
    assert [str(path) for path in sorted(paths) if not path.exists()] == []


def test_functions_exist() -> None:
    """Names of the form `name` (`file.py`) are defined in that file."""
    text = (ROOT / "docs/architecture.md").read_text()
    pairs = re.findall(r"`([A-Za-z_.]+)`\s+\(`(job/[a-z0-9_/]+\.py)`", text)
    assert len(pairs) > 10
    for name, path in pairs:
        last = name.rpartition(".")[2]
        pattern = rf"^\s*(?:def|class) {last}\b|^{last}\b.*="
        assert re.search(pattern, (ROOT / path).read_text(), re.MULTILINE), f"{name} in {path}"


def test_layers_are_those_of_the_contract() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    (block,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    shown = [re.split(r"\s{2,}", line)[0] for line in block.splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (each["layers"] for each in contracts["contracts"] if each["id"] == "layers")
    assert shown == layers


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`make ([a-z][a-z-]*)", (ROOT / page).read_text()):
            assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), f"{page}: make {target}"


def test_make_run_announces_the_installation(tmp_path: Path) -> None:
    command = ["make", "--dry-run", "run", f"VENV={tmp_path}/venv"]
    commands = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r" GB on disk", commands.partition("pip install")[0])


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("pyproject.toml", r'^version = "(.*)"'),
        ("README.md", r"\bjob:(\d[\w.]*)"),
        ("k8s/base/kustomization.yaml", r'newTag: "(.*)"'),
        ("k8s/overlays/eks/kustomization.yaml", r'newTag: "(.*)"'),
    ],
)
def test_versions_agree(file: str, pattern: str) -> None:
    found = re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert set(found) == {job.__version__}
