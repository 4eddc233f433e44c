"""``job pack`` and ``job predict`` as a user of the tutorial calls them."""

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiers import full_but
from tiny_run import Run, job, report_of

from job.data import packed

pytestmark = pytest.mark.e2e

SHAPE = (1, 8, 8)
IMAGES = 359


@pytest.fixture(scope="module")
def data(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's test split, packed by the command."""
    path = tmp_path_factory.mktemp("packed") / "deep" / "digits.bin"
    done = job("pack", "m.json", "--output", path, cwd=finished.folder)
    assert f"{path}: " in done.out
    assert "1x8x8" in done.out
    return path


def test_packed_is_what_the_run_tests_on(finished: Run, data: Path) -> None:
    assert data.read_bytes() == (finished.output / "data" / "test.bin").read_bytes()
    assert packed.read_sidecar(data) == packed.read_sidecar(finished.output / "data" / "test.bin")


def test_pack_takes_overrides_and_names_its_file(finished: Run, tmp_path: Path) -> None:
    options = ("--set", "data.val_fraction=0.01", "--json")
    done = job("pack", finished.folder / "m.json", *options, cwd=tmp_path)
    written = json.loads(done.out)
    assert written["file"] == "tiny-test.bin"
    assert written["count"] == round(0.01 * 1797)
    assert written["shape"] == [1, 8, 8]
    assert "[0.5]" in written["transform"]
    sidecar = json.loads((tmp_path / "tiny-test.bin.json").read_text())
    assert written == {"file": "tiny-test.bin", **sidecar}
    assert len(packed.open_packed(tmp_path / "tiny-test.bin", SHAPE).labels) == written["count"]


@pytest.mark.full
def test_pack_tells_a_wrong_manifest_and_a_wrong_place(finished: Run, tmp_path: Path) -> None:
    manifest = finished.folder / "m.json"
    wrong = job("pack", manifest, "--set", "data.form=x", cwd=tmp_path, expect=2)
    assert "/data/form: " in wrong.err
    (tmp_path / "file").write_text("")
    place = job("pack", manifest, "--output", tmp_path / "file" / "x.bin", cwd=tmp_path, expect=1)
    assert str(tmp_path / "file") in place.err


@pytest.mark.parametrize("name", full_but(["fp32", "qat_fake", "int8"], {"int8"}))
def test_accuracy_is_the_reports(finished: Run, data: Path, name: str) -> None:
    # The tutorial's own spelling.
    options = ("--batch_size=50", "--skip_batch_num=0", "--warmup_size=1", "--num_threads=1")
    done = job(
        "predict",
        f"--infer_model={finished.output / name}",
        f"--infer_data={data}",
        *options,
        "--json",
        cwd=finished.folder,
    )
    found: dict[str, Any] = json.loads(done.out)
    expected = report_of(finished.output)["accuracy"][name]
    assert found["accuracy"]["top1"] == expected["top1"]
    assert found["accuracy"]["top5"] == expected["top5"]
    assert found["accuracy"]["images"] == found["data"]["images"] == IMAGES
    kinds = {"fp32": "fp32", "qat_fake": "fake_quantized", "int8": "int8"}
    assert found["model"]["kind"] == kinds[name]
    assert found["speed"]["calls"] == IMAGES // 50
    assert found["primitives"] is None


def test_the_text_tells_counts_speed_and_primitives(finished: Run, data: Path) -> None:
    options = ("--infer-data", data, "--iterations", "2", "--profile")
    done = job("predict", "--infer-model", "out/int8/model", *options, cwd=finished.folder)
    lines = done.out.splitlines()
    assert lines[0].startswith("INT8 model out/int8/model")
    assert lines[1].startswith(f"100 of {IMAGES} images")
    assert any(line.startswith("Top-1") and "100" in line for line in lines)
    assert any(line.startswith("Speed") and line.endswith("images/s") for line in lines)
    profile = next(number for number, line in enumerate(lines) if line.startswith("oneDNN"))
    assert any("convolution" in line and ":avx" in line for line in lines[profile + 1 :])


def test_faults_end_with_their_code(finished: Run, data: Path, tmp_path: Path) -> None:
    opened = packed.open_packed(data, SHAPE)
    labels = opened.labels.copy()
    labels[5] = 10
    wrong = tmp_path / "wrong.bin"
    packed.write(wrong, [(np.array(opened.images), labels)], shape=SHAPE, transform="none")
    faults = [
        (("--infer-data", wrong), 4, "label 10 of image 5"),
        (("--infer-data", "none.bin"), 4, "none.bin"),
        (("--infer-data", data, "--num-threads", "5000"), 5, "5000 threads"),
    ]
    for options, code, name in faults:
        done = job(
            "predict", "--infer-model", "out/fp32", *options, cwd=finished.folder, expect=code
        )
        assert name in done.err


def test_a_signal_ends_it_with_its_children(finished: Run, data: Path) -> None:
    options = ["--infer-model", "out/int8", "--infer-data", str(data), "--repeat", "1000000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "job", "predict", *options],
        cwd=finished.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text().split():
        assert process.poll() is None
        time.sleep(0.01)
    (child,) = map(int, children.read_text().split())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert re.search("^error: .*SIGINT", err, re.MULTILINE)
    deadline = time.monotonic() + 60
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Whether a process is there and has not ended."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
