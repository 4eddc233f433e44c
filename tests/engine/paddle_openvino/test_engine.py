"""Paddle's OpenVINO engine computes the rewritten program like the fake-quantized model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from job.engine.inference.saved_model import PADDLE_OPENVINO, read_saved_model
from job.engine.paddle_openvino import convert
from job.engine.paddle_openvino.network import DEQUANTIZE, names, read_network
from job.errors import DataError
from job.predict import main as predict

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not convert.has_engine(), reason="this Paddle has no OpenVINO engine"),
]

LEAST_DB = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake-quantized model with halved weights, and the engine's model in ``out``.

    Without AVX512_VNNI, the engine's kernels add two products in 16 bits, which overflow with
    weights of more than 64 steps.
    """
    folder = tmp_path_factory.mktemp("engine")
    tiny.quantize(tiny.open_tiny(classes=8), folder, bias=1.0)
    network = read_network(folder / "fake")
    for op in network.ops:
        (name,) = names(op.inputs, "X")[:1] or [""]
        if op.type == DEQUANTIZE and name in network.values:
            network.values[name] = np.rint(network.values[name] / 2).astype("int8")
            (scale,) = names(op.inputs, "Scale")
            network.values[scale] = network.values[scale] * 2
    network.write(folder / "half")
    (folder / "out").mkdir()
    return folder


@pytest.fixture(scope="module")
def record(folder: Path) -> Any:
    return convert.convert(folder / "half", folder / "out")


def test_the_engine_agrees_with_the_fake_quantized_model(
    folder: Path, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images, _ = tiny.examples(32, seed=5)
    expected = tiny.scores(folder / "half", "fake_quantized", images)
    model = convert.open_model(folder / "out", 1)
    for batch in (32, 5):
        found = model.scores(images[:batch])
        noise = float(np.square(found - expected[:batch]).sum())
        signal = float(np.square(expected[:batch]).sum())
        assert 10 * np.log10(signal / noise) > LEAST_DB
    assert 0 < record["unsigned"] < record["quantizers"]
    assert record["int8_weights"] > 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="8x8"):
        model.scores(images[:, :, :4, :4])


def test_other_kernels_reject_the_model(folder: Path, record: Any) -> None:
    assert read_saved_model(folder / "out" / "model").kind == PADDLE_OPENVINO
    with pytest.raises(DataError, match="OpenVINO engine"):
        predict.Tester(folder / "out" / "model", 1)
