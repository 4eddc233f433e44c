"""The output folder: locks, publishing, damage, and errors of the file system."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_stages import names

from job.errors import OutputError
from job.storage import local
from job.storage.digests import Digests
from job.storage.files import output_errors, read_json, write_bytes, write_json
from job.storage.local import LocalOutput, Published

HOLD = """
import sys, time
from pathlib import Path
from job.storage.local import LocalOutput
with LocalOutput(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def output(tmp_path: Path) -> Iterator[LocalOutput]:
    folder = LocalOutput(tmp_path / "run")
    with folder.locked():
        yield folder


def finish(output: LocalOutput, content: str = "model", key: str = "k1") -> Published:
    path, _ = output.partial("qat", key)
    (path / "model.bin").write_text(content)
    (path / "deep").mkdir()
    (path / "deep" / "scale.bin").write_text("0.1")
    return output.publish("qat", "qat", ingredients={"a": 1}, seconds=2.5, record={"loss": 0.5})


class TestLock:
    def test_second_run_is_told_who_holds_it(self, output: LocalOutput) -> None:
        with (
            pytest.raises(OutputError, match=rf"process {os.getpid()} on .*, started"),
            LocalOutput(output.root).locked(),
        ):
            pass

    def test_free_again(self, tmp_path: Path) -> None:
        for _ in range(2):
            with LocalOutput(tmp_path / "run").locked():
                assert (tmp_path / "run" / ".lock").exists()

    def test_killed_holder_leaves_it_free(self, tmp_path: Path) -> None:
        with _holder(tmp_path / "run") as holder:
            with (
                pytest.raises(OutputError, match=f"process {holder.pid} on"),
                LocalOutput(tmp_path / "run").locked(),
            ):
                pass
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            with LocalOutput(tmp_path / "run").locked():
                pass

    def test_orphan_worker_keeps_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("job.storage.lock._ORPHAN_SECONDS", 0.2)
        root = tmp_path / "run"
        with LocalOutput(root).locked() as descriptor:
            orphan = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
            gone = {"pid": 2**22 + 1, "host": os.uname().nodename, "started": "2026-01-01"}
        try:
            (root / ".lock").write_text(json.dumps(gone))
            began = time.monotonic()
            with (
                pytest.raises(OutputError, match=r"process 4194305 on .*worker process"),
                LocalOutput(root).locked(),
            ):
                pass
            assert time.monotonic() - began >= 0.2
        finally:
            orphan.kill()
            orphan.wait()


class _holder:  # noqa: N801
    """Another process that holds the lock."""

    def __init__(self, root: Path) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, env=environment
        )

    def __enter__(self) -> "subprocess.Popen[bytes]":
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"held\n"
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


class TestPublish:
    def test_all_of_it_is_kept(self, output: LocalOutput) -> None:
        made = finish(output)
        assert output.published("qat") == made
        assert made.path == output.root / "qat"
        assert made.files.keys() == {"model.bin", "deep/scale.bin"}
        assert made.files["model.bin"]["bytes"] == 5
        document = read_json(made.path / "stage.json")
        assert document["record"] == {"loss": 0.5}
        assert {"stage", "key", "seconds", "finished_at", "files", "record"} <= document.keys()
        assert names(made.path) == ["deep", "model.bin", "stage.json"]
        assert not (output.partials / "qat").exists()

    def test_replaces_the_old_one(self, output: LocalOutput) -> None:
        finish(output)
        finish(output, "better", "k2")
        assert (output.root / "qat" / "model.bin").read_text() == "better"
        assert names(output.partials) == []

    @pytest.mark.parametrize("renames", [0, 1])
    def test_killed_between_renames(
        self, output: LocalOutput, monkeypatch: pytest.MonkeyPatch, renames: int
    ) -> None:
        """Whatever rename the kill precedes, the next run finds old or new, whole."""
        finish(output)
        path, _ = output.partial("qat", "k2")
        (path / "model.bin").write_text("better")
        done: list[Path] = []
        rename = Path.rename

        def failing(self: Path, target: Path) -> Path:
            if len(done) == renames:
                raise KeyboardInterrupt
            done.append(target)
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", failing)
            with pytest.raises(KeyboardInterrupt, match=r"^$"):
                output.publish("qat", "qat", ingredients={}, seconds=1, record={})
        visible = output.published("qat")
        assert visible is None or visible.damage(Digests(path / "none")) is None
        output.recover([("qat", "qat")])
        found = output.published("qat")
        assert found is not None
        assert found.key == "k2"
        assert names(output.partials) == []

    def test_killed_after_the_renames(
        self, output: LocalOutput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a stage would have resumed from does not stay beside its result."""
        path, _ = output.partial("qat", "k1")
        (path / "checkpoints").mkdir()
        (path / "checkpoints/step-1").write_text("7")

        def failing(path: Path) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(local, "_tidy", failing)
            with pytest.raises(KeyboardInterrupt, match=r"^$"):
                output.publish("qat", "qat", ingredients={}, seconds=1, record={})
        assert names(output.root / "qat") == [".key", "checkpoints", "stage.json"]
        output.recover([("qat", "qat")])
        assert names(output.root / "qat") == ["stage.json"]

    def test_what_a_kill_left_half_written_is_not_published(self, output: LocalOutput) -> None:
        path, _ = output.partial("qat", "k1")
        (path / "best.tmp").write_text("half of")
        (path / "plain.tmp").mkdir()
        (path / "plain.tmp/model").write_text("half of")
        (path / "best.npz").write_text("whole")
        made = output.publish("qat", "qat", ingredients={}, seconds=1, record={})
        assert made.files.keys() == {"best.npz"}
        assert names(made.path) == ["best.npz", "stage.json"]

    def test_unfinished_work_is_not_recovered(self, output: LocalOutput) -> None:
        path, _ = output.partial("qat", "k1")
        (path / "half.bin").write_text("half")
        output.recover([("qat", "qat")])
        assert output.published("qat") is None
        assert path.exists()

    def test_a_report_of_the_whole_goes_with_the_first_new_part(self, output: LocalOutput) -> None:
        for name in ("report.json", "report.html"):
            (output.root / name).write_text("{}")
        finish(output)
        assert not list(output.root.glob("report.*"))

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "qat"}'])
    def test_unreadable_stage_file(self, output: LocalOutput, text: str) -> None:
        finish(output)
        (output.root / "qat" / "stage.json").write_text(text)
        assert output.published("qat") is None

    def test_what_a_kill_left_of_a_report_is_removed(self, output: LocalOutput) -> None:
        ours = ("report.json", "manifest.json", "failure.json", ".digests.json", ".report.json")
        for name in ours:
            (output.root / f".{name}.1670.tmp").write_text("{")
        mine = (".report.json.draft.tmp", ".notes.1670.tmp")
        for name in mine:
            (output.root / name).write_text("")
        killed = LocalOutput(output.root.with_name("killed"))
        shutil.copytree(output.root, killed.root)
        with killed.locked():
            assert sorted(path.name for path in killed.root.glob("*.tmp")) == sorted(mine)


class TestPartial:
    def test_same_key_goes_on(self, output: LocalOutput) -> None:
        path, resumed = output.partial("qat", "k1")
        assert not resumed
        (path / "checkpoints").mkdir()
        (path / "checkpoints/step-7").write_text("7")
        (path / "checkpoints/.step-8.1670.tmp").write_text("half of")
        again, resumed = output.partial("qat", "k1")
        assert resumed
        assert (again / "checkpoints/step-7").read_text() == "7"
        assert names(again / "checkpoints") == ["step-7"]

    def test_other_key_begins_anew(self, output: LocalOutput) -> None:
        path, _ = output.partial("qat", "k1")
        (path / "checkpoint").write_text("7")
        again, resumed = output.partial("qat", "k2")
        assert not resumed
        assert names(again) == [".key"]

    def test_work_without_a_checkpoint_is_dropped(self, output: LocalOutput) -> None:
        """Readers of the report would take it for a later run that is not finished."""
        path, _ = output.partial("qat", "k1")
        output.drop_unfinished("qat")
        assert not path.exists()

    def test_checkpoints_are_kept_for_a_run_with_their_settings(self, output: LocalOutput) -> None:
        path, _ = output.partial("qat", "k1")
        (path / "checkpoints").mkdir()
        (path / "checkpoints/step-1.npz").touch()
        output.drop_unfinished("qat")
        assert output.partial("qat", "k1") == (path, True)


class TestDamage:
    def damage(self, made: Published) -> str | None:
        return made.damage(Digests(made.path / "none"))

    def test_none(self, output: LocalOutput) -> None:
        assert self.damage(finish(output)) is None

    def test_time_alone_is_none(self, output: LocalOutput) -> None:
        made = finish(output)
        os.utime(made.path / "model.bin", ns=(1, 1))
        assert self.damage(made) is None

    def test_content(self, output: LocalOutput) -> None:
        made = finish(output)
        (made.path / "model.bin").write_text("MODEL")
        os.utime(made.path / "model.bin", ns=(1, 1))
        assert self.damage(made) == "qat/model.bin was changed after the run"

    def test_size_and_absence(self, output: LocalOutput) -> None:
        made = finish(output)
        (made.path / "model.bin").write_text("mode")
        assert self.damage(made) == "qat/model.bin was changed after the run"
        (made.path / "model.bin").unlink()
        assert self.damage(made) == "qat/model.bin is missing"


class TestOurs:
    def test_new_empty_and_own_folders_pass(self, output: LocalOutput, tmp_path: Path) -> None:
        finish(output)
        output.check_ours(["qat"])
        (output.root / ".lock").unlink()
        output.check_ours(["qat"])
        LocalOutput(tmp_path / "new").check_ours(["qat"])

    @pytest.mark.parametrize("name", ["data", "manifest.json", "logs"])
    def test_the_users_own_things_are_not_replaced(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).mkdir()
        with pytest.raises(OutputError, match=f"{name} "):
            LocalOutput(tmp_path).check_ours(["data"])
        assert not (tmp_path / ".lock").exists()

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"stage": 1}', '{"key": "k", "files": []}'])
    def test_a_record_of_another_program(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/stage.json").write_text(text)
        with pytest.raises(OutputError, match="data "):
            LocalOutput(tmp_path).check_ours(["data"])


class TestRefusals:
    def test_a_file_stands_there(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("")
        with (
            pytest.raises(OutputError, match=f"{tmp_path / 'run'}: "),
            LocalOutput(tmp_path / "run").locked(),
        ):
            pass

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.ENOSPC, r".*disk.*[\d,]+ bytes"),
            (errno.EDQUOT, ".*quota"),
            (errno.EROFS, ".*read-only"),
            (errno.EACCES, ".*permission"),
        ],
    )
    def test_translated(self, tmp_path: Path, number: int, message: str) -> None:
        file = tmp_path / "model.bin"
        with (
            pytest.raises(OutputError, match=rf"{file}: {message}") as caught,
            output_errors(tmp_path),
        ):
            raise OSError(number, os.strerror(number), str(file))
        assert caught.value.exit_code == 1

    def test_an_input_that_may_not_be_read_is_no_fault_of_the_output(self, tmp_path: Path) -> None:
        with (
            pytest.raises(PermissionError, match="Permission denied"),
            output_errors(tmp_path / "run"),
        ):
            raise PermissionError(errno.EACCES, "Permission denied", "/data/cat.png")

    def test_full_disk(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        if os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("mounting a small disk needs root")
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)])
        if mounted.returncode != 0:
            pytest.skip("this container may not mount")
        try:
            output = LocalOutput(disk / "run")
            with (
                pytest.raises(OutputError, match="0 bytes"),
                output.locked(),
            ):
                finish(output)
                path, _ = output.partial("qat", "k2")
                (path / "model.bin").write_bytes(bytes(1 << 20))
            found = LocalOutput(disk / "run").published("qat")
            assert found is not None
            assert found.damage(output.digests) is None
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_file_size_limit(self, tmp_path: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        target = tmp_path / "report.json"
        write_bytes(target, b"old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with (
                pytest.raises(OutputError, match=f"{target}: .*(.|\n)*ulimit"),
                output_errors(tmp_path),
            ):
                write_bytes(target, bytes(8192))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert target.read_bytes() == b"old"
        assert names(tmp_path) == ["report.json"]


def test_manifest_is_written_once(output: LocalOutput) -> None:
    output.keep_manifest({"name": "a"})
    before = (output.root / "manifest.json").stat().st_ino
    output.keep_manifest({"name": "a"})
    assert (output.root / "manifest.json").stat().st_ino == before
    output.keep_manifest({"name": "b"})
    assert read_json(output.root / "manifest.json") == {"name": "b"}


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    write_json(tmp_path / "a.json", {"name": "näme\udc80"})
    assert read_json(tmp_path / "a.json") == {"name": "näme\udc80"}


def test_a_foreign_lock_file_does_not_make_a_folder_ours(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("mine")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(OutputError, match=r"report\.html "):
        LocalOutput(tmp_path).check_ours(["data"])
