"""A user's mistakes: one clear message, its exit code, no traceback."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from tiers import full_but
from tiny_run import Run, draw_images, job, run_json, start, wait_until, write_manifest

pytestmark = pytest.mark.e2e

# The machine's CPU flags, but for the one that INT8 needs.
WITHOUT_VNNI = """
import dataclasses, sys
import job.host
read_host = job.host.read_host
def without(*arguments, **options):
    host = read_host(*arguments, **options)
    flags = tuple(flag for flag in host.flags if flag != "avx512_vnni")
    return dataclasses.replace(host, flags=flags)
job.host.read_host = without
from job.cli.main import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_manifest(tmp_path)
    return tmp_path


def refused(folder: Path, *arguments: str, code: int, names: Sequence[str | Path] = ()) -> str:
    """The command fails with one error that contains ``names``, and prints no result."""
    done = job("run", "m.json", *arguments, cwd=folder, expect=code)
    for name in names:
        assert str(name) in done.err
    assert done.err.count("error: ") == 1
    assert "Table" not in done.out
    return done.err


class TestManifest:
    def test_missing(self, folder: Path) -> None:
        (folder / "m.json").unlink()
        refused(folder, code=2, names=["m.json"])

    @pytest.mark.full
    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("{", ["m.json", "  /: "]),
            ("", ["m.json", "  /: "]),
            ("[]", ["m.json", "  /: ", "object"]),
            ('{"version": 1, "version": 1}', ["version", "line 1, column 2"]),
            ('{"version": 2, "other": 3}', ["/version: ", "2"]),
        ],
    )
    def test_unreadable(self, folder: Path, text: str, names: list[str]) -> None:
        (folder / "m.json").write_text(text)
        refused(folder, code=2, names=names)

    @pytest.mark.full
    def test_not_utf8(self, folder: Path) -> None:
        (folder / "m.json").write_bytes(b"\xff{}")
        refused(folder, code=2, names=["UTF-8", "0xff", "line 1, column 1"])

    def test_every_fault_in_one_go(self, folder: Path) -> None:
        write_manifest(
            folder,
            model={"name": "resnet5O"},
            quantize={"elmentwise_add": True, "quantize_op_types": ["conv2d", "elmentwise_add"]},
            train={"epochs": "3", "lerning_rate": 0.1},
        )
        said = refused(folder, code=2, names=["m.json", "resnet50", "elementwise_add", '"3"'])
        pointers = ["/model/name", "/quantize/elmentwise_add", "/quantize/quantize_op_types/1"]
        pointers += ["/train/epochs", "/train/lerning_rate"]
        assert sorted(re.findall(r"^  (/\S*): ", said, re.MULTILINE)) == sorted(pointers)
        assert "job explain" in said

    @pytest.mark.full
    def test_overrides_are_checked_like_the_file(self, folder: Path) -> None:
        arguments = ("--set", "train.max_iter=3", "--set", "data.workers=0")
        names = ("m.json", "/train/max_iter: ", "'max_iters'", "/data/workers: ")
        refused(folder, *arguments, code=2, names=names)

    def test_missing_as_json(self, folder: Path) -> None:
        arguments = ("run", "none.json", "--log-format", "json")
        (event,) = job(*arguments, cwd=folder, expect=2).events
        assert (event["event"], event["exit_code"]) == ("error", 2)


class TestData:
    def test_missing(self, folder: Path) -> None:
        write_manifest(
            folder, data={"format": "packed", "train_file": "a.bin", "val_file": "b.bin"}
        )
        said = refused(folder, code=4, names=[f"{folder}/a.bin", f"{folder}/b.bin"])
        assert f" {folder}" in said.splitlines()[-1]
        assert not (folder / "out/data").exists()

    @pytest.mark.full
    @pytest.mark.parametrize(
        ("line", "names"),
        [
            ("", ["train.txt"]),
            ("a.png\n", ["train.txt:1", "`path label`"]),
            ("a.png 0\nb.png 10\n", ["train.txt:2", "label 10", "0 to 9"]),
            ("../a.png 0\n", ["train.txt:1", "'../a.png'"]),
        ],
    )
    def test_lists(self, folder: Path, line: str, names: list[str]) -> None:
        (folder / "train.txt").write_text(line)
        write_manifest(folder, data={"format": "imagenet_list", "train_list": "train.txt"})
        refused(folder, code=4, names=names)

    @pytest.mark.full
    def test_class_folders_of_another_number(self, folder: Path) -> None:
        (folder / "train/cat").mkdir(parents=True)
        write_manifest(folder, data={"format": "class_folders", "train_dir": "train"})
        refused(folder, code=4, names=["model.classes", "10", "(cat)"])


class TestWeights:
    @pytest.fixture
    def ready(self, copy_until: Callable[..., Run]) -> Path:
        """The data is prepared; the weights are those of the finished run."""
        run = copy_until("data", "fp32")
        (run.output / "fp32/weights.pdparams").rename(run.folder / "w.pdparams")
        model = {"weights": "w.pdparams"}
        write_manifest(run.folder, model=model, baseline={"train": {"max_iters": None}})
        return run.folder

    @pytest.mark.full
    def test_of_the_jobs_own(self, ready: Path, trained: Run) -> None:
        job("run", "m.json", "--until", "baseline", cwd=ready)
        one = (ready / "out/fp32/model.pdiparams").read_bytes()
        assert one == (trained.output / "fp32/model.pdiparams").read_bytes()

    @pytest.mark.full
    def test_of_another_model(self, ready: Path) -> None:
        names = ("shape", "/model/name", "/model/width")
        refused(ready, "--set", "model.width=1", code=4, names=names)

    @pytest.mark.full
    def test_of_another_digest(self, ready: Path) -> None:
        digest = "0" * 64
        arguments = ("--set", f'model.weights_sha256="{digest}"')
        refused(ready, *arguments, code=4, names=[ready / "w.pdparams", digest])

    def test_of_other_classes(self, ready: Path) -> None:
        names = ("shape", "/model/reset_classifier")
        refused(ready, "--set", "model.classes=12", code=4, names=names)

    @pytest.mark.parametrize("kind", full_but(["truncated", "empty", "code"], {"code"}))
    def test_corrupt(self, ready: Path, kind: str) -> None:
        path = ready / "w.pdparams"
        content = {"truncated": path.read_bytes()[:-500], "empty": b"", "code": pickle.dumps(print)}
        path.write_bytes(content[kind])
        refused(ready, code=4, names=[path])


class TestBeforePrepare:
    """Mistakes in the model are found before the images are read."""

    @pytest.fixture
    def real(self, folder: Path) -> Path:
        """Class folders, and a baseline that is not trained."""
        draw_images(folder / "train", 20)
        self.change(folder)
        return folder

    def change(self, folder: Path, **model: object) -> None:
        data = {"format": "class_folders", "train_dir": "train"}
        untrained = {"train": {"max_iters": 0}}
        write_manifest(
            folder,
            model={"classes": 3, "input_shape": [3, 8, 8], **model},
            data=data,
            baseline=untrained,
        )

    def test_forgotten_weights(self, real: Path) -> None:
        refused(real, code=2, names=["m.json", "/model/weights: ", "/model/random_weights"])
        refused(real, "--dry-run", code=2, names=["/model/weights: "])
        job("validate", "m.json", cwd=real, expect=2)
        assert not (real / "out").exists()
        job("run", "m.json", "--until", "prepare", cwd=real)
        self.change(real, random_weights=True)
        job("validate", "m.json", cwd=real)
        assert "random weights" in job("run", "m.json", "--until", "baseline", cwd=real).err

    def test_weights_of_another_network(self, real: Path, trained: Run) -> None:
        shutil.copy(trained.output / "fp32/weights.pdparams", real / "w.pdparams")
        self.change(real, weights="w.pdparams", width=2)
        refused(real, code=4, names=["w.pdparams", "shape", "/model/width"])
        assert not (real / "out/data").exists()

    def test_files_of_another_kind(self, real: Path, trained: Run) -> None:
        shutil.copy(trained.output / "fp32/model.pdmodel", real)
        shutil.copy(trained.output / "fp32/model.pdiparams", real)
        self.change(real, weights="model.pdmodel")
        for arguments in (("run", "m.json", "--dry-run"), ("validate", "m.json")):
            assert ".pdmodel" in job(*arguments, cwd=real, expect=4).err
        self.change(real, name=None, width=1, inference_model="model")
        refused(real, code=4, names=["model.pdmodel", "/model/classes to 10"])
        assert not (real / "out").exists()

    def test_a_network_that_cannot_be_called(self, real: Path) -> None:
        (real / "mine.py").write_text("def network(depth): ...")
        self.change(real, name=None, width=1, callable="mine:network", random_weights=True)
        refused(real, "--allow-code", "--dry-run", code=2, names=["/model/callable: ", "depth"])
        (real / "mine.py").write_text("import no_such_module\ndef network(): ...")
        refused(real, "--allow-code", code=2, names=["/model/callable: ", "no_such_module"])
        assert not (real / "out/data").exists()


class TestTraining:
    @pytest.mark.full
    def test_diverging(self, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        wild = {"base_lr": 100, "weight_decay": 1, "max_iters": 40, "checkpoint_seconds": 0.001}
        write_manifest(run.folder, baseline={"train": wild})
        said = refused(run.folder, code=1)
        # Which value overflows first, the loss or a statistic, depends on the CPU's kernels.
        assert re.search(r"^error: baseline: .*step \d+", said, re.MULTILINE)
        assert list((run.output / ".partial/baseline/checkpoints").glob("step-*.npz"))

    def test_gpu(self, copy_until: Callable[..., Run]) -> None:
        run = copy_until("data")
        refused(run.folder, "--set", "baseline.train.device=gpu", code=5, names=["gpu"])


class TestOutput:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1100k", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("a small disk can be mounted by root only")
        yield disk
        subprocess.run(["umount", "-l", str(disk)], check=True)

    @pytest.mark.full
    def test_full_disk(self, folder: Path, small_disk: Path) -> None:
        output = ("--output", str(small_disk / "out"), "--until", "baseline")
        refused(folder, *output, code=1, names=["full"])
        assert (small_disk / "out/data/stage.json").exists()
        grow = ["mount", "-o", "remount,size=20m", str(small_disk)]
        subprocess.run(grow, check=True)
        assert run_json(folder, *output).of("stage_reused") == ["prepare"]

    def test_very_full_disk(self, folder: Path, small_disk: Path) -> None:
        (small_disk / "other").write_bytes(bytes(1000 * 1024))
        output = str(small_disk / "out")
        refused(folder, "--output", output, code=1, names=["full"])

    def test_locked(self, folder: Path) -> None:
        process = start("run", "m.json", "--until", "prepare", cwd=folder, err=folder / "err.txt")
        wait_until((folder / "out/logs/prepare.log").exists, process)
        process.send_signal(signal.SIGSTOP)
        refused(folder, code=1, names=[f"process {process.pid}", "--output"])
        process.send_signal(signal.SIGCONT)
        assert process.wait(120) == 0

    def test_not_ours(self, folder: Path) -> None:
        (folder / "out/data").mkdir(parents=True)
        (folder / "out/data/precious.txt").write_text("mine")
        refused(folder, code=1, names=["out/data"])
        assert (folder / "out/data/precious.txt").read_text() == "mine"

    @pytest.mark.full
    def test_a_file(self, folder: Path) -> None:
        (folder / "out").write_text("a file")
        refused(folder, code=1, names=[folder / "out"])


class TestMachine:
    def test_without_vnni(self, folder: Path) -> None:
        command = ("-c", WITHOUT_VNNI)
        done = job("run", "m.json", cwd=folder, command=command, expect=5)
        assert "AVX512_VNNI" in done.err
        assert "--allow-slow-isa" in done.err
        assert not (folder / "out").exists()

    @pytest.mark.full
    def test_allowed(self, copy: Run) -> None:
        command = ("-c", WITHOUT_VNNI)
        done = job("run", "m.json", "--allow-slow-isa", cwd=copy.folder, command=command)
        assert "ot comparable" in done.out
        report = json.loads((copy.output / "report.json").read_bytes())
        assert report["comparable"] is False
        assert any("not comparable" in note for note in report["notes"])

    def test_too_many_threads(self, folder: Path) -> None:
        """The run ends before hours of training."""
        refused(folder, "--set", "benchmark.threads=[999]", code=5, names=["999 threads"])
        assert not (folder / "out").exists()


def test_wrong_commands(folder: Path) -> None:
    for arguments in (("run",), ("rum",), ("run", "m.json", "--from", "qta")):
        done = job(*arguments, cwd=folder, expect=2)
        assert done.err.strip()
    assert re.search(r"\bqat\b", done.err)


def test_weights_are_arrays(trained: Run) -> None:
    with (trained.output / "fp32/weights.pdparams").open("rb") as file:
        weights = pickle.load(file)  # noqa: S301 - written by the run
    assert all(isinstance(value, np.ndarray) for value in weights.values())
