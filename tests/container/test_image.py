"""What the image is, apart from what it runs."""

import json
import subprocess
from typing import Any

import pytest
from containers import ENGINE, IMAGE, ODD_USER, run

pytestmark = pytest.mark.container

# A process forks a child that forks a grandchild and ends at once: whoever is PID 1 must reap it.
ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork():
        os._exit(0)
    time.sleep(0.2)
    os._exit(0)
os.wait()
time.sleep(1)
running = [pid for pid in os.listdir("/proc") if pid.isdigit()]
print("".join(open(f"/proc/{pid}/stat").read().split()[2] for pid in running))
"""


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    shown = subprocess.run(
        [*ENGINE, "image", "inspect", IMAGE], capture_output=True, check=True, text=True
    )
    found: dict[str, Any] = json.loads(shown.stdout)[0]["Config"]
    return found


def test_runs_as_nobody_in_particular(config: dict[str, Any]) -> None:
    assert config["User"] == "1000:0"
    assert config["WorkingDir"] == "/work"
    assert config["Entrypoint"] == ["tini", "--", "job"]
    assert "JOB_SCRATCH=/work/.scratch" in config["Env"]


def test_labels(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    assert isinstance(labels, dict)
    told = {name.rpartition(".")[2]: value for name, value in labels.items()}
    assert {"title", "description", "licenses", "version", "revision", "created"} <= set(told)
    assert "unknown" not in told.values()


def test_first_process_reaps_orphans() -> None:
    done = run("--", "python", "-c", ORPHAN, options=("--entrypoint", "tini"))
    assert done.code == 0, done.err
    assert done.out.strip()
    assert "Z" not in done.out


def test_quotas_set_threads_and_jemalloc_allocates() -> None:
    limits = ("--cpus", "1", "--memory", "3g")
    done = run("doctor", "--json", user=ODD_USER, options=limits)
    found = json.loads(done.out)
    told = {finding["name"]: finding["found"] for finding in found["findings"]}
    assert told["cores"].startswith("1 ")
    assert told["cgroup CPU quota"].startswith("1 ")
    assert told["memory"].startswith("3.0 GiB")
    assert told["allocator"] == "jemalloc"
    assert "error" not in found["smoke"]


def test_allocator_can_be_turned_off() -> None:
    done = run("doctor", "--json", options=("--env", "LD_PRELOAD="))
    assert json.loads(done.out)["host"]["allocator"] == "glibc"


def test_int8_was_proved_where_it_was_built() -> None:
    done = run("/opt/job/share/doctor.json", options=("--entrypoint", "cat"))
    assert json.loads(done.out)["smoke"]["kernels"]


def test_manifests_are_at_hand_without_a_volume() -> None:
    done = run("validate", "manifests/digits.json", "manifests/tutorial-tables.json")
    assert (done.code, len(done.out.splitlines())) == (0, 2), done.err


def test_no_package_manager_for_the_job() -> None:
    done = run("-c", "import pip; print(pip.__doc__)", options=("--entrypoint", "python"))
    assert "Empty" in done.out
