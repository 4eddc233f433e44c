"""The README's container command, run without changes, with the available engine."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from containers import ENGINE, IMAGE, ROOT
from tiny_run import report_of, write_manifest

pytestmark = pytest.mark.container


def test_docker_run(needs_vnni: None, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"```sh\n(docker run .*?)\n```", readme, re.DOTALL)
    assert f" {IMAGE} " in command
    work, tools = tmp_path / "work", tmp_path / "tools"
    write_manifest(work / "manifests").rename(work / "manifests/digits.json")
    tools.mkdir()
    (tools / "docker").write_text(f'#!/bin/sh\nexec {shlex.join(ENGINE)} "$@"\n')
    (tools / "docker").chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", command], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert report_of(work / "out")["status"] == "passed"
