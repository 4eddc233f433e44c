"""The README's Kubernetes commands, run without changes except for a stand-in of kubectl."""

import os
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from kubernetes_policies import BY_FEATURE, EVERYWHERE, VERSIONS, broken

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
# Logs its arguments, and saves each applied document in a file.
KUBECTL = """#!/bin/sh
echo "$@" >> "$HEARD/commands"
case "$1 $4" in
  "apply -") cat > "$HEARD/$(wc -l < "$HEARD/commands").yaml" ;;
  apply*) cp "$4" "$HEARD/$(wc -l < "$HEARD/commands").yaml" ;;
  get*) echo "FailureTarget Failed" ;;
esac
"""


def test_the_readmes_commands_apply_what_a_cluster_takes(tmp_path: Path) -> None:
    (block,) = [text for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "k8s" in text]
    tools = {
        "kubectl": KUBECTL,
        "job": f'#!/bin/sh\nexec "{sys.executable}" -m job "$@"\n',
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "HEARD": str(tmp_path)}
    subprocess.run(["sh", "-ec", block], cwd=ROOT, env=environment, check=True)
    claim, job = (list(yaml.safe_load_all((tmp_path / f"{n}.yaml").read_text())) for n in (1, 2))
    for made in (*claim, *job):
        for version in VERSIONS:
            kubernetes_validate.validate(made, version, strict=True)
    assert broken(job[1], (*EVERYWHERE, *BY_FEATURE)) == []
    # The commands wait for, and mount, the objects that they created.
    name = job[1]["metadata"]["name"]
    commands = (tmp_path / "commands").read_text().splitlines()
    # Without --server-side, a manifest above 256 KiB does not fit into an annotation.
    assert all(command.split()[1] == "--server-side" for command in commands[:2])
    # The loop ends at a failure too.
    assert commands[2].startswith(f"get job/{name} ")
    assert commands[3] == f"logs job/{name}"
    volume = job[1]["spec"]["template"]["spec"]["volumes"][0]
    assert volume["persistentVolumeClaim"]["claimName"] == claim[0]["metadata"]["name"]
