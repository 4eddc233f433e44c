"""The programs of docs/deploy.md, and ``job predict --image``, give the same label."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tiny_run import SLOW, Run, job, write_manifest

pytestmark = pytest.mark.e2e

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
ENGINES = [name for name in ("openvino", "onnxruntime") if util.find_spec(name)]
# The programs must print any name.
NAMES = [f'Größe {number} "写真", \\ok' for number in range(10)]
# Calibration instead of training, and few rounds: only the folders matter.
QUICK = {
    "quantize": {"strategy": "post"},
    "baseline": {"train": {"max_iters": 12}},
    # On a CPU without VNNI, sums of other engines can overflow.
    "gates": {"int8_matches_fake": None},
    "benchmark": {
        "engines": ["paddle", "paddle_openvino", *ENGINES],
        "rounds": 1,
        "min_seconds": 0.02,
    },
}


def program(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(text)


def engine_program(engine: str) -> str:
    """The program in Python with the parts for another engine, as the page describes."""
    text, *parts = program("python"), *program(f"python {engine}").splitlines()
    model, answer = "\n".join(parts[:-1]), parts[-1]
    text = text.replace("from paddle import inference", f"import {engine}")
    text = re.sub("(?s)(# The model.\n).*(\n# The image.)", lambda m: m[1] + model + m[2], text)
    return re.sub("(?s)tensor = .*?(?=\nif deploy)", lambda _: answer, text)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with all installed engines, on any machine."""
    folder = tmp_path_factory.mktemp("quick")
    write_manifest(folder, **QUICK)
    return Run(folder, job("run", "m.json", *SLOW, cwd=folder))


@pytest.fixture(scope="module")
def deployable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose classes have names; on a machine without AVX512_VNNI, one of its own."""
    if SLOW and not request.config.getoption("--full"):
        pytest.skip("no AVX512_VNNI here, so these tests run with --full only")
    run: Run = request.getfixturevalue("quick" if SLOW else "finished")
    folder = tmp_path_factory.mktemp("named")
    shutil.copytree(run.output, folder / "out")
    path = folder / "out/report.json"
    report = json.loads(path.read_text())
    report["data"]["class_names"] = NAMES
    path.write_text(json.dumps(report))
    return Run(folder, job("report", "out", cwd=folder))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        gray = np.rint(load_digits().images[number] * 255 / 16).astype(np.uint8)
        Image.fromarray(gray).resize((24, 20)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def predicted(deployable: Run, photos: Path) -> dict[str, str]:
    """The label and the probability of the first image by `job predict`."""
    options = (
        "--infer-model",
        deployable.output / "int8",
        "--image",
        photos,
        "--compare",
        "--json",
    )
    rows = json.loads(job("predict", *options, cwd=photos).out)
    assert [Path(row["image"]).name for row in rows] == ["0.png", "1.png"]
    assert all(row["fp32"]["label"] in NAMES for row in rows)
    answer = rows[0]["answer"]
    return {"label": answer["label"], "percent": f"{100 * answer['probability']:.1f}%"}


def test_the_python_program_agrees_with_predict(
    deployable: Run, photos: Path, predicted: dict[str, str]
) -> None:
    command = [
        sys.executable,
        "-c",
        program("python"),
        deployable.output / "int8",
        photos / "0.png",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{predicted['label']} {predicted['percent']}"


@pytest.mark.full
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_programs_of_other_engines_agree_with_predict(
    engine: str, quick: Run, photos: Path
) -> None:
    if engine not in ENGINES:
        pytest.skip(f"{engine} is not installed: make engines")
    folder = quick.output / f"int8_{engine}"
    options = ("--infer-model", folder, "--image", photos / "0.png", "--json")
    (row,) = json.loads(job("predict", *options, cwd=photos).out)
    command = [sys.executable, "-c", engine_program(engine), folder, photos / "0.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = row["answer"]
    assert done.stdout.split() == [answer["label"], f"{100 * answer['probability']:.1f}%"]


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in C++ of the page."""
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "classify.cc").write_text(program("cpp"))
    command = ["g++", "-std=c++17", "-O1", "classify.cc", "-o", "classify", *library()]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "classify"


def cpp_answer(program: Path, model: Path, image: Path, folder: Path) -> tuple[str, str]:
    """The label and the probability that the program in C++ prints for an image."""
    Image.open(image).convert("RGB").save(folder / "image.ppm")
    command = [program, model, "image.ppm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    label, _, percent = done.stdout.strip().rpartition(" ")
    return label, f"{float(percent.removesuffix('%')):.1f}%"


def test_the_cpp_program_agrees_with_predict(
    deployable: Run, photos: Path, predicted: dict[str, str], cpp: Path, tmp_path: Path
) -> None:
    answer = cpp_answer(cpp, deployable.output / "int8", photos / "0.png", tmp_path)
    assert answer == (predicted["label"], predicted["percent"])


@pytest.mark.full
def test_the_cpp_program_runs_the_openvino_engine_in_paddle(
    quick: Run, photos: Path, cpp: Path, tmp_path: Path
) -> None:
    folder = quick.output / "int8_paddle_openvino"
    options = ("--infer-model", folder, "--image", photos / "0.png", "--json")
    (row,) = json.loads(job("predict", *options, cwd=photos).out)
    percent = f"{100 * row['answer']['probability']:.1f}%"
    answer = cpp_answer(cpp, folder, photos / "0.png", tmp_path)
    assert answer == (row["answer"]["label"], percent)
    assert not list(tmp_path.glob("**/__cache__"))


def library() -> list[str]:
    """The options for g++: the C++ archive in PADDLE_ROOT, or the library in Paddle's wheel."""
    if archive := os.environ.get("PADDLE_ROOT"):
        root = Path(archive) / "paddle"
        return [
            f"-I{root}/include",
            f"-L{root}/lib",
            f"-Wl,-rpath,{root}/lib",
            "-lpaddle_inference",
        ]
    folder = Path(str(sysconfig.get_config_var("LIBDIR")))
    python = folder / f"libpython3.{sys.version_info.minor}.so"
    if not shutil.which("g++") or not python.exists():
        pytest.skip("g++ or libpython is not installed")
    (paddle,) = util.find_spec("paddle").submodule_search_locations  # type: ignore[union-attr, misc]
    headers = Path(__file__).parents[2] / "job/native/wheel"
    options = ["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
    options += [f"-Wl,-rpath,{each}" for each in (f"{paddle}/base", f"{paddle}/libs", folder)]
    return [f"-I{headers}", *options, f"{paddle}/base/libpaddle.so", str(python)]


def test_an_image_that_cannot_be_read_is_named(deployable: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    options = ("--infer-model", deployable.output / "int8", "--image", tmp_path / "bad.png")
    assert "bad.png" in job("predict", *options, cwd=tmp_path, expect=4).err


def check_refused(
    model: Path, changes: dict[str, Any], named: str, image: Path, folder: Path
) -> None:
    """The model with a changed deploy.json is rejected, with a message that names the fault."""
    shutil.copytree(model, folder / model.name)
    path = folder / model.name / "deploy.json"
    record = json.loads(path.read_text())
    for section in (record, record["model"], record["transform"], record["input"]):
        section |= {key: changes[key] for key in changes if key in section}
    path.write_text(json.dumps(record))
    options = ("--infer-model", path.parent, "--image", image)
    error = job("predict", *options, cwd=folder, expect=4).err
    assert "deploy.json" in error
    assert named in error


@pytest.mark.parametrize(
    ("model", "changes", "named"),
    [
        ("int8", {"engine": "paddle_openvino"}, "/model"),
        ("fp32", {"precision": "int8"}, "/model"),
        ("int8", {"class_names": ["a", "b"]}, "/class_names"),
        ("int8", {"mean": [float("nan")]}, "NaN"),
        ("int8", {"shape": [None, 1, 4, 4]}, "/input/shape"),
        ("fp32", {"name": "picture"}, "picture"),
    ],
)
def test_a_wrong_record_is_rejected(
    deployable: Run, photos: Path, tmp_path: Path, model: str, changes: dict[str, Any], named: str
) -> None:
    check_refused(deployable.output / model, changes, named, photos / "0.png", tmp_path)


@pytest.mark.full
def test_paddles_kernels_never_run_the_program_for_the_openvino_engine(
    quick: Run, photos: Path, tmp_path: Path
) -> None:
    """They would compute wrong classes without an error."""
    model = quick.output / "int8_paddle_openvino"
    check_refused(model, {"engine": "paddle"}, "/model", photos / "0.png", tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("engine", ["paddle_openvino", *ENGINES])
def test_a_wrong_shape_is_rejected(engine: str, quick: Run, photos: Path, tmp_path: Path) -> None:
    model = quick.output / f"int8_{engine}"
    shape = {"shape": [None, 1, 4, 4]}
    check_refused(model, shape, "/input/shape", photos / "0.png", tmp_path)


@pytest.mark.full
@pytest.mark.parametrize(
    "file",
    [
        *("fp32/model.pdmodel", "int8/model.pdmodel", "int8/model.pdiparams"),
        *("int8_paddle_openvino/model.pdmodel", "int8_paddle_openvino/model.pdiparams"),
        *("int8_openvino/model.xml", "int8_openvino/model.bin", "int8_onnxruntime/model.onnx"),
    ],
)
@pytest.mark.parametrize("kind", ["truncated", "garbage"])
def test_a_damaged_model_is_named(
    file: str, kind: str, quick: Run, photos: Path, tmp_path: Path
) -> None:
    source = quick.output / file
    if not source.is_file():
        pytest.skip(f"{source.parent.name} is not built here")
    shutil.copytree(source.parent, tmp_path / "model")
    path = tmp_path / "model" / source.name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3] if kind == "truncated" else b"garbage" * 999)
    options = ("--infer-model", tmp_path / "model", "--image", photos / "0.png")
    error = job("predict", *options, cwd=tmp_path, expect=4).err
    assert str(tmp_path / "model") in error
    assert "Traceback" not in error


def test_image_and_packed_file_exclude_each_other(deployable: Run, tmp_path: Path) -> None:
    both = ("--infer-model", "m", "--image", "x.png", "--infer-data", "x.bin")
    assert "--image" in job("predict", *both, cwd=tmp_path, expect=2).err
    assert "--image" in job("predict", "--infer-model", "m", cwd=tmp_path, expect=2).err


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (("--image", "x.png"), ("--num-threads", "1")),
        (("--image", "x.png"), ("--num_threads=2",)),
        (("--image", "x.png"), ("--repeat", "5")),
        (("--image", "x.png"), ("--nowith_accuracy_layer",)),
        (("--image", "x.png"), ("--profile",)),
        (("--infer-data", "x.bin"), ("--compare",)),
    ],
)
def test_options_without_an_effect_are_refused(
    tmp_path: Path, given: tuple[str, ...], wrong: tuple[str, ...]
) -> None:
    done = job("predict", "--infer-model", "m", *given, *wrong, cwd=tmp_path, expect=2)
    name = wrong[0].partition("=")[0].replace("_", "-").replace("--nowith", "--with")
    assert f"error: {name} needs " in done.err
