"""SIGKILL after every third or seventh request to S3, and the same run again.

The stages are a few lines that run in the process that is killed, so that any request of a whole
run can be the last one; ``tests/e2e/test_crashes.py`` does the same with a real job, at fewer
points.
"""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from forked import in_a_process
from moto_server import S3Server
from tiers import sampled

from job.process.signals import StopSignals
from job.storage.files import write_bytes, write_json
from job.storage.local import REPORTS
from job.storage.s3 import index
from job.storage.s3.client import S3Settings, make_client
from job.storage.s3.lease import LEASES
from job.storage.s3.objects import ObjectStore
from job.storage.s3.output import S3Output
from job.uri import S3Uri

STEPS = 2
# The second stage reads what the first one left.
CHAIN = (("train", "weights"), ("convert", "model"))
REQUESTS = ("put_object", "get_object", "head_object", "delete_object", "list_objects_v2")
REQUESTS += ("list_multipart_uploads",)


class Mortal:
    """A client whose process is killed after some requests.

    Args:
        client: the real client.
        last: the number of the last request, from 1; 0 for no limit.
    """

    def __init__(self, client: Any, last: int) -> None:
        self._client, self._last, self._lock = client, last, threading.Lock()
        self.made = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in REQUESTS:
            return real

        def request(**given: Any) -> Any:
            with self._lock:
                answer = real(**given)
                self.made += 1
                if self.made == self._last:
                    os.kill(os.getpid(), signal.SIGKILL)
                return answer

        return request


def content(name: str, version: int) -> str:
    return f"{name} of version {version}"


def work(client: Any, output: S3Uri, scratch: Path, version: int) -> None:
    """A run: two stages, of which the first writes checkpoints, and a report."""
    folder = S3Output(output, ObjectStore(client), scratch, lease_seconds=60, say=print)
    with StopSignals() as stop, folder.locked():
        folder.recover(CHAIN)
        folder.keep_manifest({"version": version})
        for number, (name, output_dir) in enumerate(CHAIN):
            key = hashlib.sha256(content(name, version).encode()).hexdigest()
            left = folder.published(output_dir)
            if left and left.key == key and folder.damage(left) is None:
                continue
            if number:
                folder.download(["weights"])
                assert (folder.root / "weights/file").read_text() == content("train", version)
            path, _ = folder.partial(name, key)
            if not number:
                train(path, lambda: folder.sync(stop, 25))
            (path / "file").write_text(content(name, version))
            folder.publish(name, output_dir, ingredients={}, seconds=1.0, record={})
            folder.sync(stop, 25)
        for name in REPORTS[:-1]:
            write_bytes(folder.root / name, content("report", version).encode())
        write_json(folder.root / REPORTS[-1], version)
        folder.sync(stop, 25)


def train(out: Path, keep: Callable[[], None]) -> None:
    """Write a checkpoint after each step, resuming from the last one."""
    (out / "checkpoints").mkdir(exist_ok=True)
    done = max((int(path.name) for path in (out / "checkpoints").iterdir()), default=0)
    for step in range(done + 1, STEPS + 1):
        (out / "checkpoints" / f"{step}.tmp").write_text(f"after {step}")
        (out / "checkpoints" / f"{step}.tmp").rename(out / "checkpoints" / str(step))
        keep()


def visible(server: S3Server, output: S3Uri) -> Mapping[str, bytes]:
    """Return the files of the output; every listed file must exist with the right content."""
    found = index.newest(server.store, output)
    files = found.files if found else {}
    return {
        path: server.store.read(output / entry.object, sha256=entry.sha256)
        for path, entry in files.items()
    }


def check_whole(server: S3Server, output: S3Uri, version: int) -> None:
    """Check that the output has exactly the files of this version."""
    files = dict(visible(server, output))
    for name, output_dir in CHAIN:
        assert files.pop(f"{output_dir}/file") == content(name, version).encode()
        record = json.loads(files.pop(f"{output_dir}/stage.json"))
        assert list(record["files"]) == ["file"]
    for name in REPORTS[:-1]:
        assert files.pop(name) == content("report", version).encode()
    assert json.loads(files.pop(REPORTS[-1])) == version
    assert json.loads(files.pop("manifest.json")) == {"version": version}
    assert files == {}
    named = {entry.object for entry in index.read(server.store, output).entries}
    stored = {
        each.uri.key.removeprefix(output.below) for each in server.store.list(output / "runs")
    }
    assert stored == named
    assert len(list(server.store.list(output / LEASES))) == 1
    assert len(index.names(server.store, output)) == 1


def check_no_mixture(server: S3Server, output: S3Uri) -> None:
    """A finished run is of one version."""
    files = visible(server, output)
    if REPORTS[-1] in files:
        version = json.loads(files[REPORTS[-1]])
        assert files["model/file"] == content("convert", version).encode()
        assert files["report.json"] == content("report", version).encode()


class KilledRuns:
    """Runs on one output after the other; each is killed once and started again.

    Args:
        server: the server.
        base: folder for the scratch folders.
    """

    def __init__(self, server: S3Server, base: Path) -> None:
        self.server, self.base = server, base
        # Made here and used in none but forked processes: it takes a fifth of a second.
        self.client = make_client(S3Settings())

    def requests(self, output: S3Uri, scratch: Path, version: int) -> int:
        """Run to the end, and return how many requests that takes."""

        def action() -> int:
            client = Mortal(self.client, 0)
            work(client, output, scratch, version)
            (self.base / "made").write_text(str(client.made))
            return 0

        assert in_a_process(action) == 0
        return int((self.base / "made").read_text())

    def killed(self, output: S3Uri, scratch: Path, version: int, last: int) -> bool:
        """Run until the request of a number; False if it ended before."""

        def action() -> int:
            work(Mortal(self.client, last), output, scratch, version)
            return 0

        code = in_a_process(action)
        assert code in (0, -signal.SIGKILL)
        return code != 0


@pytest.mark.parametrize(("before", "every"), [(None, 3), (1, 7)], ids=["first", "over-another"])
def test_killed_after_every_request(
    s3_server: S3Server,
    bucket: S3Uri,
    tmp_path: Path,
    tell: Callable[[str], None],
    before: int | None,
    every: int,
) -> None:
    """Every second time the disk is lost too, and another machine resumes."""
    course = KilledRuns(s3_server, tmp_path)
    original = bucket / "original"
    if before is not None:
        course.requests(original, tmp_path / "first", before)
        s3_server.copy(original, bucket / "counted")
    total = course.requests(bucket / "counted", tmp_path / "counted", 2)
    killed, points = 0, sampled(range(1, total, every))
    for number, last in enumerate(points):
        output, scratch = bucket / f"after-{last}", tmp_path / f"scratch-{last}"
        if before is not None:
            s3_server.copy(original, output)
        killed += course.killed(output, scratch, 2, last)
        check_no_mixture(s3_server, output)
        if number % 2:
            shutil.rmtree(scratch, ignore_errors=True)
        course.requests(output, scratch, 2)
        check_whole(s3_server, output, 2)
    assert killed >= len(points) - 2
    tell(f"killed after {killed} of {total} requests")
