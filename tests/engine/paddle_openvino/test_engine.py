"""Paddle's OpenVINO engine computes the rewritten program like the fake-quantized model."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from paddle import nn  # noqa: TID251
from PIL import Image
from tiny import needs_vnni

from job.cli.predict import KINDS
from job.engine.inference import saved_model
from job.engine.inference.saved_model import PADDLE_OPENVINO, read_saved_model
from job.engine.paddle_openvino import convert, model
from job.engine.rewrites import openvino_form
from job.engine.rewrites.network import DEQUANTIZE, Network, names, read_network
from job.errors import DataError, MachineError, QuantizationError
from job.host import read_host
from job.isa import ISA_ORDER
from job.manifest import parse
from job.predict import main as predict
from job.stages import paddle_openvino as stage
from job.stages.stage import StageOutput
from job.tasks.classification import agreement

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not model.has_engine(), reason="this Paddle has no OpenVINO engine"),
]

# The network is tiny, and on a CPU without AVX512_VNNI its weights have half the steps.
LEAST_DB = 18
FILES = ["model.pdiparams", "model.pdmodel"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake-quantized model, and the engine's model in ``out``."""
    folder = tmp_path_factory.mktemp("engine")
    tiny.quantize(tiny.open_tiny(classes=8), folder, bias=1.0)
    (folder / "out").mkdir()
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> Any:
    has_vnni = read_host().has_vnni
    return convert.convert(folder / "fake", folder / "out", has_vnni=has_vnni)


def test_the_engine_agrees_with_the_fake_quantized_model(
    folder: Path, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images, _ = tiny.examples(32, seed=5)
    expected = tiny.scores(folder / "fake", "fake_quantized", images)
    loaded = model.open_model(folder / "out", 1)
    for batch in (32, 5):
        found = loaded.scores(images[:batch])
        noise = float(np.square(found - expected[:batch]).sum())
        signal = float(np.square(expected[:batch]).sum())
        assert 10 * np.log10(signal / noise) > LEAST_DB
    assert 0 < record["unsigned"] < record["quantizers"]
    assert record["int8_weights"] > 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="8x8"):
        loaded.scores(images[:, :, :4, :4])


class Gated(nn.Layer):
    """A squeeze-and-excitation block whose gate multiplies the result of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2D(tiny.SHAPE[0], 16, 3, padding=1)
        self.conv = nn.Conv2D(16, 16, 3, padding=1, bias_attr=False)
        self.squeeze, self.excite = nn.Conv2D(16, 4, 1), nn.Conv2D(4, 16, 1)
        self.last = nn.Conv2D(16, 16, 3, padding=1)
        self.head = nn.Linear(16, tiny.CLASSES)

    def forward(self, x: Any) -> Any:
        relu = nn.functional.relu
        x = self.conv(relu(self.first(x)))
        gate = self.excite(relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1))))
        x = x + x * nn.functional.hardsigmoid(gate, slope=0.2)
        return self.head(relu(self.last(x)).mean([2, 3]))


@needs_vnni
def test_a_gate_multiplies_the_rounded_result_of_a_convolution(tmp_path: Path) -> None:
    made = tiny.quantize(tiny.session_of(Gated, tiny.SHAPE, tiny.CLASSES), tmp_path)
    (tmp_path / "out").mkdir()
    convert.convert(tmp_path / "fake", tmp_path / "out")
    found = model.open_model(tmp_path / "out", 1).outputs(made.images)
    assert agreement(found, (made.fake,), (made.fp32,)).signal_to_noise_db > 20


def test_only_the_engine_loads_the_model(
    folder: Path, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_saved_model(folder / "out" / "model").kind == PADDLE_OPENVINO
    monkeypatch.setattr(model, "has_engine", lambda: False)
    for load in (predict.Tester, model.PaddleOpenVINOModel):
        with pytest.raises(MachineError, match="OpenVINO engine"):
            load(folder / "out" / "model", 1)


@pytest.mark.parametrize(("bound", "written"), [(15, True), (90, False)])
def test_only_a_model_that_computes_what_was_trained_is_written(
    bound: int, written: bool, folder: Path, tmp_path: Path
) -> None:
    found = run_stage(read_network(folder / "fake"), bound, tmp_path)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == FILES * written
    assert (found["rejected"] is None) == written
    if written:
        assert found["agreement"]["signal_to_noise_db"] > bound
        assert found["int8_primitives"] > 0
        assert found["isa"]["int8"] in ISA_ORDER


@pytest.mark.parametrize("damaged", [False, True])
def test_a_part_that_all_images_share_hides_no_damage(
    damaged: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = read_network(folder / "fake")
    bias = next(name for op in reversed(network.ops) for name in names(op.inputs, "Y"))
    shared = np.arange(network.values[bias].size, dtype="float32")
    network.values[bias] = network.values[bias] + 100 * shared
    if damaged:
        monkeypatch.setattr(openvino_form, "STEPS", (*openvino_form.STEPS, lose_the_image))
    found = run_stage(network, 15, tmp_path)
    assert (found["rejected"] is not None) == damaged


def lose_the_image(network: Network) -> None:
    """Set the weights of the last layer to zero."""
    weights = [
        name for op in network.ops if op.type == DEQUANTIZE for name in names(op.inputs, "X")
    ]
    last = [name for name in weights if name in network.values][-1]
    network.values[last] = np.zeros_like(network.values[last])


def run_stage(network: Network, bound: int, folder: Path) -> Any:
    """Run the stage on a fake-quantized network, which is also its FP32 network."""
    document = {
        "version": 1,
        "name": "tiny",
        "model": {"name": "convnet", "classes": 10, "input_shape": list(tiny.SHAPE)},
        "data": {"format": "digits", "mean": [0.5], "std": [0.5]},
        "gates": {"int8_matches_fake": bound},
    }
    network.write(folder / "model")
    tiny.pack(folder / "calibration.bin", 32, seed=5)
    inputs = {name: StageOutput(folder, {}) for name in ("prepare", "baseline", "convert")}
    (folder / "out").mkdir()
    return stage.run(parse(document, "m.json", folder), inputs, folder / "out", tiny.News())


def test_a_program_that_the_engine_cannot_load(folder: Path, tmp_path: Path) -> None:
    network = read_network(folder / "fake")
    next(op for op in network.ops if op.type == "relu").type = "erfinv"
    network.write(tmp_path / "unknown")
    with pytest.raises(QuantizationError, match="cannot load the model"):
        model.PaddleOpenVINOModel(tmp_path / "unknown", 1)


def test_the_python_program_of_the_docs_runs_the_model(
    folder: Path, record: Any, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[3] / "docs/deploy.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for name in FILES:
        shutil.copy(folder / "out" / name, tmp_path)
    deploy = {
        "model": {"engine": "paddle_openvino", "files": FILES[::-1], "load": None},
        "measured": {"latency": {"threads": 1}},
        "transform": {
            "channel_order": "gray",
            "resize": {"mode": "exact", "size": [8, 8]},
            "scale": 1 / 255,
            "mean": [0.5],
            "std": [0.5],
        },
        "input": {"name": read_saved_model(tmp_path / "model").image},
        "output": {"name": read_saved_model(tmp_path / "model").scores, "meaning": "scores"},
        "class_names": [f"kind-{number}" for number in range(8)],
    }
    (tmp_path / "deploy.json").write_text(json.dumps(deploy))
    pixels = np.random.default_rng(4).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    command = [sys.executable, "-c", program, tmp_path, tmp_path / "image.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = ((pixels / 255 - 0.5) / 0.5)[None, None].astype("float32")
    best = model.open_model(folder / "out", 1).scores(images).argmax()
    assert done.stdout.split()[0] == f"kind-{best}"


def test_the_command_line_names_every_kind_of_model() -> None:
    kinds = {saved_model.FP32, saved_model.FAKE_QUANTIZED, saved_model.INT8, PADDLE_OPENVINO}
    assert set(KINDS) == kinds
