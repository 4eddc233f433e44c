"""Runs a pod template as a kubelet would, with `run` of docker or podman.

`podman kube play` would do, but for subPath, which podman 4 ignores. A field that is not known here
is an error: nothing that a template promises is left out unseen.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from containers import ENGINE, LIMIT_S, Ended

# Of scheduling, of the API server, and of the engine by default.
ELSEWHERE = {
    *("affinity", "restartPolicy", "terminationGracePeriodSeconds", "enableServiceLinks"),
    *("automountServiceAccountToken", "securityContext"),
}


def run_pod(
    pod: Mapping[str, Any], config: Mapping[str, Mapping[str, str]], folder: Path
) -> tuple[Ended, str]:
    """Run the one container of a pod to its end; its volumes are folders in ``folder``.

    Args:
        pod: the template's ``spec``.
        config: the files of each ConfigMap.
        folder: where volumes are made.

    Returns:
        How it ended, and its termination message.
    """
    assert pod.keys() - ELSEWHERE == {"containers", "volumes"}
    assert pod["securityContext"].keys() <= {
        *("runAsNonRoot", "seccompProfile", "fsGroup", "fsGroupChangePolicy")
    }
    (container,) = pod["containers"]
    last_word = folder / "termination-log"
    last_word.touch()
    last_word.chmod(0o666)
    mounts = [f"{last_word}:{container['terminationMessagePath']}"]
    for mount in container["volumeMounts"]:
        source = volume(mount["name"], pod["volumes"], config, folder)
        mode = "ro" if mount.get("readOnly") else "rw"
        mounts.append(f"{source / mount.get('subPath', '')}:{mount['mountPath']}:{mode}")
    options = [*secured(container["securityContext"]), *limited(container["resources"])]
    for entry in container["env"]:
        options += ["--env", f"{entry['name']}={entry['value']}"]
    options += [word for mount in mounts for word in ("--volume", mount)]
    command = [*ENGINE, "run", "--rm", "--network", "none", *options, container["image"]]
    done = subprocess.run(
        [*command, *container["args"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return Ended(done.returncode, done.stdout, done.stderr), last_word.read_text()


def volume(name: str, volumes: Any, config: Mapping[str, Mapping[str, str]], folder: Path) -> Path:
    """Make a volume, as a folder that everyone may write to."""
    (found,) = [volume for volume in volumes if volume["name"] == name]
    (kind,) = found.keys() - {"name"}
    assert kind in ("emptyDir", "configMap", "persistentVolumeClaim")
    path = folder / name
    path.mkdir()
    path.chmod(0o777)
    if kind == "configMap":
        for file, text in config[found[kind]["name"]].items():
            (path / file).write_text(text)
    return path


def secured(context: Mapping[str, Any]) -> list[str]:
    """The engine's options for a container's securityContext."""
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return ["--security-opt", "no-new-privileges", "--read-only", "--cap-drop", "ALL"]


def limited(resources: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The engine's options for limits; of disk there is none."""
    limits = dict(resources["limits"])
    del limits["ephemeral-storage"]
    cpu, memory = limits.pop("cpu"), limits.pop("memory")
    assert not limits
    assert memory.endswith("Gi")
    return ["--cpus", cpu, "--memory", f"{memory[:-2]}g"]
