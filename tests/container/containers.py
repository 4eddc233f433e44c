"""The image as its users run it, whichever engine runs it."""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGINE = shlex.split(os.environ.get("CONTAINER", ""))
IMAGE = os.environ.get("JOB_IMAGE", "")
# The strictest that a cluster may ask for.
LOCKED_DOWN = (
    *("--network", "none", "--read-only"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--cpus", "2", "--memory", "4g"),
)
# The image's own user, and one that no file of the image knows, as OpenShift sets it.
USER, ODD_USER = "1000:0", "1234567:0"
LIMIT_S = 280


@dataclass(frozen=True)
class Ended:
    """A container that has ended."""

    code: int
    out: str
    err: str


def command(
    *arguments: str,
    volume: Path | None = None,
    user: str = USER,
    tmp: str = "rw",
    options: Sequence[str] = (),
) -> list[str]:
    """The engine's command for a locked-down container with ``volume`` at /work."""
    mount = ["--volume", f"{volume}:/work"] if volume else []
    locked = [*LOCKED_DOWN, "--tmpfs", f"/tmp:{tmp}", "--user", user]
    return [*ENGINE, "run", "--rm", *locked, *options, *mount, IMAGE, *arguments]


def run(
    *arguments: str,
    volume: Path | None = None,
    user: str = USER,
    tmp: str = "rw",
    options: Sequence[str] = (),
) -> Ended:
    """Run the image to its end; ``options`` follow the options that restrict the container."""
    done = subprocess.run(
        command(*arguments, volume=volume, user=user, tmp=tmp, options=options),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def run_and_kill(*arguments: str, volume: Path, signal: str, when: Callable[[str], bool]) -> Ended:
    """Run the image, and send it a signal once ``when`` is true of what it printed to stderr."""
    name, printed = f"job-test-{os.getpid()}", volume.parent / "stderr.txt"
    started = command(*arguments, volume=volume, options=("--name", name))
    with printed.open("wb") as stderr:
        process = subprocess.Popen(
            started, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
    deadline = time.monotonic() + LIMIT_S
    while not when(printed.read_text()):
        assert process.poll() is None, printed.read_text()
        assert time.monotonic() < deadline, printed.read_text()
        time.sleep(0.2)
    subprocess.run([*ENGINE, "kill", "--signal", signal, name], check=True, capture_output=True)
    code = process.wait(LIMIT_S)
    return Ended(code, "", printed.read_text())


def give(folder: Path, user: str) -> None:
    """Let a user of a container write to a folder."""
    owner, _, group = user.partition(":")
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, int(owner), int(group))
