"""Child processes, with this module as the program that they run."""

import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from job.errors import DataError, Fault, JobError, ManifestError, UsageError
from job.process.environment import environment
from job.process.json_channel import ChildProcess, JsonChannel, describe_exit, run_child


@pytest.fixture(autouse=True)
def child_processes() -> None:
    """Start real child processes instead of forking them."""


def work(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Do what the request names."""
    match request["do"]:
        case "echo":
            while message := channel.receive():
                print("noise on standard output")
                channel.send(**message)
        case "data error":
            raise DataError("cat.png is truncated", "Fetch it again.")
        case "manifest error":
            raise ManifestError("m.json", (Fault("/name", "is missing"),))
        case "crash":
            raise ZeroDivisionError("by zero")
        case "exit":
            sys.exit(3)
        case "parent":
            child = start("echo")
            channel.send(pid=child.pid)
            time.sleep(60)
        case "memory":
            bytearray(request["bytes"])


def start(do: str, **options: Any) -> ChildProcess:
    request = {"do": do, **options.pop("request", {})}
    variables = environment(1)
    variables["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parent}"
    return ChildProcess("test_json_channel", request, environment=variables, **options)


@pytest.fixture
def ends() -> Iterator[tuple[JsonChannel, JsonChannel]]:
    one, other = map(JsonChannel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_objects_arrive_whole_and_in_order(ends: tuple[JsonChannel, JsonChannel]) -> None:
    sender, receiver = ends
    sent = [{"text": "é\n"}, {"numbers": list(range(200_000))}, {"last": None}]
    thread = threading.Thread(target=lambda: [sender.send(**message) for message in sent])
    thread.start()
    assert [receiver.receive(), receiver.receive(), receiver.receive()] == sent
    thread.join()
    assert not receiver.has_input()
    assert receiver.receive(0.01) is None
    assert not receiver.closed
    sender.close()
    assert receiver.has_input()
    assert receiver.receive() is None
    assert receiver.closed


def test_a_child_answers_beside_what_libraries_print(tmp_path: Path) -> None:
    with (tmp_path / "log.txt").open("w") as log, closing(start("echo", log=log)) as child:
        child.send(number=7)
        assert child.receive() == {"number": 7}
        child.send(number=8)
        assert child.receive() == {"number": 8}
        assert child.poll() is None
    assert (tmp_path / "log.txt").read_text().startswith("noise")
    assert child.exit_code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        ("data error", DataError, "cat.png is truncated\nFetch it again."),
        # Made of other values than its message.
        ("manifest error", UsageError, "m.json"),
    ],
)
def test_an_error_of_the_job_is_raised_again(do: str, kind: type[JobError], text: str) -> None:
    with closing(start(do)) as child:
        with pytest.raises(JobError, match=f"^{text}") as caught:
            child.receive()
        assert type(caught.value) is kind
        assert (child.receive(), child.wait()) == (None, 0)


@pytest.mark.parametrize(
    ("do", "code", "exception"), [("crash", 1, "ZeroDivisionError: by zero"), ("exit", 3, "")]
)
def test_the_end_of_a_child_is_reported(
    do: str, code: int, exception: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(start(do)) as child:
        assert child.receive() is None
        assert (child.wait(), child.exception) == (code, exception)
        assert describe_exit(code) == f"exited with code {code}"
        child.send(text="to nobody")
    assert exception in capfd.readouterr().err


def test_a_killed_child_is_named_by_its_signal() -> None:
    with closing(start("echo")) as child:
        child.signal(signal.SIGSEGV)
        assert child.receive() is None
        assert describe_exit(child.wait()).endswith("SIGSEGV")


def test_peak_memory_is_that_of_the_child() -> None:
    with closing(start("memory", request={"bytes": 300_000_000})) as child:
        child.wait()
        # Linux counts the memory of the process that forked, until the child executes its program.
        forked = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert 300_000_000 < child.peak_bytes <= max(600_000_000, forked)


def test_a_child_dies_with_its_parent() -> None:
    with closing(start("parent")) as parent:
        message = parent.receive()
        assert message
    deadline = time.monotonic() + 60
    while Path(f"/proc/{message['pid']}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{message['pid']}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            return
        time.sleep(0.02)
    assert not Path(f"/proc/{message['pid']}").exists()


if __name__ == "__main__":
    run_child(work)
