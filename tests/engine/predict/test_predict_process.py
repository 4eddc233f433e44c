"""The Python tester and the native tester: the same models, files, errors and figures.

Their messages are equal. Usage errors have the wording of the library that parses the options of
`job predict`.
"""

import json
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import labelled
import numpy as np
import pytest
import tiny

from job import stats
from job.data import packed
from job.engine.inference.paddle_format import read_program
from job.engine.paddle_openvino.convert import convert
from job.engine.paddle_openvino.model import has_engine, open_model
from job.engine.training import programs
from job.errors import JobError
from job.host import read_host
from job.predict import main as engine
from job.predict import runner
from job.ui.choose import make_ui

pytestmark = pytest.mark.engine

CLASSES, IMAGES = 8, 57
KINDS = {"fp32": "fp32", "fake": "fake_quantized", "model": "int8"}
MODES = {"fp32": "onednn", "fake": "fake_quantized", "model": "int8"}
FAST: dict[str, Any] = {"batch_size": 50}


@dataclass(frozen=True)
class Outcome:
    """The exit code of a tester, and its JSON or its error message."""

    code: int
    result: dict[str, Any]
    message: str


def run_python(**options: Any) -> Outcome:
    """What ``job predict`` does, in this process."""
    trial = runner.Trial(**options)
    sent: dict[str, Any] = {}
    try:
        prefix = runner.find_model(trial.infer_model)
        runner.check_exists(trial.infer_data)
        request = {**asdict(trial), "prefix": str(prefix), "profile_runs": 0}
        engine.work(request, sent.update)
        return Outcome(0, runner.document(trial, sent["result"]), "")
    except JobError as error:
        return Outcome(error.exit_code, {}, str(error))


def run_native(program: Path, *, profile: bool = False, **options: Any) -> Outcome:
    """Run the native tester with the tutorial's spellings."""
    layer = options.pop("with_accuracy_layer", None)
    arguments = [f"--{name}={value}" for name, value in options.items()]
    if layer is not None:
        arguments.append("--with_accuracy_layer" if layer else "--nowith_accuracy_layer")
    if profile:
        arguments.append("--profile")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    message = done.stderr.removeprefix("error: ").removesuffix("\n")
    return Outcome(done.returncode, json.loads(done.stdout or "{}"), message)


@pytest.fixture(params=["python", "native"])
def run(request: pytest.FixtureRequest) -> Any:
    """A tester."""
    if request.param == "python":
        return run_python
    program = request.getfixturevalue("native")
    return lambda **options: run_native(program, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of the three kinds, each with and without accuracy layer, and a packed file."""
    folder = tmp_path_factory.mktemp("tester")
    session = tiny.open_tiny(classes=CLASSES)
    images, _ = tiny.examples(IMAGES, seed=9)
    with session.active():
        tiny.settle(session, images, 1.0)
        evaluation, outputs = session.classifier.evaluation, session.classifier.outputs
        programs.save_inference_model(evaluation, folder / "fp32", outputs, session.executor)
    tiny.quantize(session, folder, bias=1.0)
    for name in KINDS:
        (folder / f"{name}_layer").mkdir()
        labelled.add_accuracy_layer(folder / name, folder / f"{name}_layer" / "model")
    # Two labels in three are the FP32 model's answer, so top-1 and top-5 are neither 0 nor 100%.
    labels = np.random.default_rng(3).integers(0, CLASSES, IMAGES)
    answers = tiny.scores(folder / "fp32", "onednn", images).argmax(1)
    write(folder / "data.bin", images, np.where(np.arange(IMAGES) % 3 == 0, labels, answers))
    return folder


def has(message: str, *parts: str) -> bool:
    """Whether a message contains all parts, in this order."""
    return re.search(".*".join(map(re.escape, parts)), message, re.DOTALL) is not None


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    packed.write(path, [(images, labels)], shape=images.shape[1:], transform="made up")
    return path


@pytest.mark.parametrize("layer", ["", "_layer"])
@pytest.mark.parametrize("name", KINDS)
def test_accuracy_is_that_of_the_saved_model(run: Any, folder: Path, name: str, layer: str) -> None:
    model = folder / f"{name}_layer" if layer else folder / name
    outcome = run(infer_model=model, infer_data=folder / "data.bin", **FAST)
    assert outcome.code == 0, outcome.message
    data = packed.open_packed(folder / "data.bin", tiny.SHAPE)
    scores = tiny.scores(folder / name, MODES[name], np.array(data.images))
    top1, top5 = (int(stats.topk_correct(scores, data.labels, k).sum()) for k in (1, 5))
    assert 0 < top1 < top5 < IMAGES
    assert outcome.result["accuracy"] == {
        "images": IMAGES,
        "top1_correct": top1,
        "top5_correct": top5,
        "top1": 100 * top1 / IMAGES,
        "top5": 100 * top5 / IMAGES,
    }
    assert outcome.result["model"] == {
        "prefix": str(model / "model") if layer else str(model),
        "kind": KINDS[name],
        "input_shape": [1, 8, 8],
        "classes": CLASSES,
        "accuracy_layer": bool(layer),
    }


def test_what_counts_for_speed(run: Any, folder: Path) -> None:
    options = {
        "batch_size": 10,
        "iterations": 6,
        "repeat": 3,
        "warmup_size": 7,
        "skip_batch_num": 2,
    }
    outcome = run(infer_model=folder / "model", infer_data=folder / "data.bin", **options)
    result = outcome.result
    assert result["settings"] == {**options, "num_threads": 1}
    # Six batches, the last one of seven images; two are skipped.
    assert result["accuracy"]["images"] == IMAGES
    assert result["speed"]["calls"] == 3 * 3
    latency = result["speed"]["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    # The mean lies between the extremes of nine calls.
    assert 1000 * 10 / result["speed"]["images_per_second"] <= latency["p99"]
    assert (
        run(
            infer_model=folder / "model",
            infer_data=folder / "data.bin",
            batch_size=10,
            iterations=2,
        ).result["accuracy"]["images"]
        == 20
    )


def test_a_batch_larger_than_the_file_is_the_file(run: Any, folder: Path) -> None:
    outcome = run(infer_model=folder / "model", infer_data=folder / "data.bin", batch_size=500)
    assert outcome.result["settings"]["batch_size"] == IMAGES
    assert outcome.result["speed"]["calls"] == 1


def test_the_layer_can_be_asked_for(run: Any, folder: Path) -> None:
    options = {"infer_data": folder / "data.bin", **FAST}
    plain, layer = folder / "fp32", folder / "fp32_layer"
    assert run(infer_model=plain, with_accuracy_layer=False, **options).code == 0
    assert run(infer_model=layer, with_accuracy_layer=True, **options).code == 0
    refused = run(infer_model=plain, with_accuracy_layer=True, **options)
    assert (refused.code, has(refused.message, "--with-accuracy-layer:")) == (2, True)
    refused = run(infer_model=layer, with_accuracy_layer=False, **options)
    assert (refused.code, has(refused.message, "--no-with-accuracy-layer:", "'label'")) == (2, True)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"iterations": 3}, ["--iterations 3:", "2 batches of 50"]),
        ({"skip_batch_num": 1}, ["--skip-batch-num 1:", "1 "]),
    ],
)
def test_more_batches_than_the_file_has(
    run: Any, folder: Path, options: Any, parts: list[str]
) -> None:
    outcome = run(infer_model=folder / "fp32", infer_data=folder / "data.bin", **FAST, **options)
    assert outcome.code == 2
    assert has(outcome.message, *parts)
    options = {"infer_model": folder / "fp32", "infer_data": folder / "data.bin", **FAST, **options}
    assert outcome.message == run_python(**options).message


def broken_file(case: str, folder: Path, target: Path) -> None:
    """A packed file with one fault."""
    data = packed.open_packed(folder / "data.bin", tiny.SHAPE)
    images, labels = np.array(data.images), data.labels.copy()
    if case in ("label above", "label below"):
        labels[3] = CLASSES if case == "label above" else -1
        write(target, images, labels)
    elif case == "other shape":
        write(target, images.reshape(-1, 1, 4, 16), labels)
    elif case == "other size":
        write(target, np.repeat(images, 2, axis=1), labels)
        packed.sidecar(target).unlink()
    elif case == "larger images":
        write(target, np.tile(images, (1, 1, 2, 2)), labels)
        packed.sidecar(target).unlink()
    elif case == "no count":
        target.write_bytes(b"\x01\x02")
    elif case == "empty":
        target.write_bytes(np.zeros(1, "<i8").tobytes())
    elif case == "huge count":
        target.write_bytes(np.full(1, 2**62, "<i8").tobytes())
    elif case == "other sidecar":
        write(target, images, labels)
        short = write(target.with_name("short.bin"), images[:5], labels[:5])
        packed.sidecar(short).replace(packed.sidecar(target))
    elif case == "no sidecar":
        write(target, images, labels)
        packed.sidecar(target).write_text("[]")


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("missing", ["data.bin", "missing"]),
        ("label above", ["label 8 of image 3", "8 classes", "1 of 57"]),
        ("label below", ["label -1 of image 3"]),
        ("other shape", ["1x8x8", "1x4x16"]),
        ("other size", ["15,056 bytes", "57 images", "1x8x8"]),
        ("larger images", ["15,056 bytes", "57 images", "1x16x16"]),
        ("no count", ["int64", "2 bytes"]),
        ("empty", ["data.bin", " 0"]),
        ("huge count", ["4,611,686,018,427,387,904 images"]),
        ("other sidecar", ["1,328 bytes", "15,056"]),
        ("no sidecar", ["data.bin.json", "shape", "bytes"]),
    ],
)
def test_a_wrong_file_is_named(
    run: Any, folder: Path, tmp_path: Path, case: str, parts: list[str]
) -> None:
    broken_file(case, folder, tmp_path / "data.bin")
    options = {"infer_model": folder / "fp32", "infer_data": tmp_path / "data.bin", **FAST}
    outcome = run(**options)
    assert outcome.code == 4
    assert has(outcome.message, *parts)
    assert outcome.message == run_python(**options).message


def broken_model(case: str, folder: Path, target: Path) -> None:
    """A model with one fault."""
    program, parameters = folder / "fp32.pdmodel", folder / "fp32.pdiparams"
    shutil.copyfile(parameters, f"{target}.pdiparams")
    shutil.copyfile(program, f"{target}.pdmodel")
    if case == "truncated parameters":
        Path(f"{target}.pdiparams").write_bytes(parameters.read_bytes()[:20_000])
    elif case == "no parameters":
        Path(f"{target}.pdiparams").unlink()
    elif case == "no program":
        Path(f"{target}.pdmodel").write_bytes(b"")
    elif case == "truncated program":
        Path(f"{target}.pdmodel").write_bytes(program.read_bytes()[:9_000])
    elif case == "label without accuracy":
        labelled.add_accuracy_layer(folder / "fp32", target)
        layer = read_program(Path(f"{target}.pdmodel"))
        for op in layer.blocks[0].ops:
            op.type = op.type.replace("accuracy", "other")
        Path(f"{target}.pdmodel").write_bytes(layer.SerializeToString())
    elif case == "no model":
        Path(f"{target}.pdmodel").unlink()
    elif case == "two models":
        for suffix in (".pdmodel", ".pdiparams"):
            shutil.copyfile(f"{target}{suffix}", target.with_name(f"other{suffix}"))


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("truncated parameters", ["model", "(Unavailable)"]),
        ("no parameters", ["model.pdiparams"]),
        ("no program", ["model.pdmodel", "no program"]),
        ("truncated program", ["model.pdmodel", "not a Paddle model"]),
        ("label without accuracy", ["model.pdmodel", "labels", "accuracy", "label"]),
        ("no model", [".pdmodel", "none", "__model__"]),
        ("two models", [".pdmodel", "model.pdmodel, other.pdmodel"]),
    ],
)
def test_a_wrong_model_is_named(
    run: Any, folder: Path, tmp_path: Path, case: str, parts: list[str]
) -> None:
    broken_model(case, folder, tmp_path / "model")
    options = {"infer_model": tmp_path, "infer_data": folder / "data.bin", **FAST}
    outcome = run(**options)
    assert outcome.code == 4
    assert has(outcome.message, *parts)
    # The native tester does not read .json models.
    of_python = run_python(**options).message
    of_native = of_python.replace(", or one .json file with .pdiparams", "")
    assert outcome.message in (of_python, of_native)


def test_a_model_of_any_size_takes_the_sidecars(run: Any, folder: Path, tmp_path: Path) -> None:
    program = read_program(folder / "fp32.pdmodel")
    for variable in program.blocks[0].vars:
        if variable.name == programs.IMAGE:
            variable.type.dense_tensor.tensor.dims[:] = [-1, 1, -1, -1]
    (tmp_path / "model.pdmodel").write_bytes(program.SerializeToString())
    shutil.copyfile(folder / "fp32.pdiparams", tmp_path / "model.pdiparams")
    data = shutil.copyfile(folder / "data.bin", tmp_path / "data.bin")
    refused = run(infer_model=tmp_path, infer_data=data, **FAST)
    assert (refused.code, has(refused.message, "sidecar")) == (4, True)
    shutil.copyfile(packed.sidecar(folder / "data.bin"), packed.sidecar(data))
    outcome = run(infer_model=tmp_path, infer_data=data, **FAST)
    expected = run(infer_model=folder / "fp32", infer_data=data, **FAST)
    assert outcome.result["model"]["input_shape"] == [1, 8, 8]
    assert outcome.result["accuracy"] == expected.result["accuracy"]


@pytest.fixture(scope="module")
def trial(folder: Path) -> runner.Trial:
    return runner.Trial(infer_model=folder / "model", infer_data=folder / "data.bin")


def test_a_fresh_process_finds_the_same(trial: runner.Trial) -> None:
    with make_ui("text") as ui:
        result = runner.predict(trial, ui)
    expected = run_python(infer_model=trial.infer_model, infer_data=trial.infer_data).result
    assert result.keys() == expected.keys()
    assert result["accuracy"] == expected["accuracy"]


def test_profile_lists_the_primitives_of_one_call(trial: runner.Trial) -> None:
    with make_ui("text") as ui:
        rows = runner.profile(trial, ui)
    ops = read_program(trial.infer_model.with_suffix(".pdmodel")).blocks[0].ops
    convolutions = sum(op.type in ("conv2d", "fused_conv2d") for op in ops)
    assert sum(row["count"] for row in rows if row["kind"] == "convolution") == convolutions
    assert all(row["implementation"] for row in rows)


def test_the_native_tester_runs_the_same_primitives(native: Path, trial: runner.Trial) -> None:
    options = {"infer_model": trial.infer_model, "infer_data": trial.infer_data, **FAST}
    with make_ui("text") as ui:
        python = {**runner.predict(trial, ui), "primitives": runner.profile(trial, ui)}
    result = run_native(native, profile=True, **options).result

    def counts(result: dict[str, Any]) -> set[tuple[object, ...]]:
        keys = ("kind", "implementation", "data_type", "count")
        return {tuple(row[key] for key in keys) for row in result["primitives"]}

    assert counts(result) == counts(python)
    assert outline(result) == outline(python)
    assert result["paddle"] == python["paddle"]


def outline(value: Any) -> Any:
    """A document's keys."""
    if isinstance(value, dict):
        return {key: outline(inner) for key, inner in value.items()}
    return sorted({str(outline(item)) for item in value}) if isinstance(value, list) else None


def test_native_threads_need_cores(native: Path, trial: runner.Trial) -> None:
    options = {"infer_model": trial.infer_model, "infer_data": trial.infer_data}
    outcome = run_native(native, **options, num_threads=5000)
    assert outcome.code == 5
    assert "5000 threads" in outcome.message


@pytest.mark.skipif(not has_engine(), reason="this Paddle has no OpenVINO engine")
def test_a_model_for_the_openvino_engine_in_paddle(
    run: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other kernels compute other scores for this model, and the engine writes to ./__cache__."""
    convert(folder / "fake", tmp_path, has_vnni=read_host().has_vnni)
    (tmp_path / "current").mkdir()
    monkeypatch.chdir(tmp_path / "current")
    outcome = run(infer_model=tmp_path, infer_data=folder / "data.bin", **FAST)
    assert outcome.code == 0, outcome.message
    assert outcome.result["model"]["kind"] == "paddle_openvino"
    data = packed.open_packed(folder / "data.bin", tiny.SHAPE)
    scores = open_model(tmp_path, 1).scores(np.array(data.images))
    right = int(stats.topk_correct(scores, data.labels, 1).sum())
    assert outcome.result["accuracy"]["top1_correct"] == right > 0
    assert not list((tmp_path / "current").iterdir())
