"""Weights are stored as bytes, and matrices have correct scales."""

from pathlib import Path

import numpy as np
import pytest
import tiny

from job.engine.inference import paddle_format
from job.engine.int8 import build as int8
from job.engine.int8 import weights
from job.errors import DataError

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tiny.Quantized:
    """An INT8 model whose weights are larger than its program."""
    folder = tmp_path_factory.mktemp("weights")
    return tiny.quantize(tiny.open_tiny(width=4.0), folder)


def parameters(prefix: Path) -> tuple[paddle_format.ProgramDesc, dict[str, np.ndarray]]:
    program = paddle_format.read_program(Path(f"{prefix}.pdmodel"))
    return program, paddle_format.read_parameters(Path(f"{prefix}.pdiparams"), program)


def test_files_are_written_as_paddle_does(made: tiny.Quantized, tmp_path: Path) -> None:
    paddle_format.write_model(tmp_path / "copy", *parameters(made.folder / "fake"))
    for suffix in (".pdmodel", ".pdiparams"):
        original = Path(made.folder / f"fake{suffix}").read_bytes()
        assert Path(tmp_path / f"copy{suffix}").read_bytes() == original


def test_foreign_parameters_are_refused(made: tiny.Quantized, tmp_path: Path) -> None:
    program, _ = parameters(made.folder / "fake")
    longer = tmp_path / "longer.pdiparams"
    longer.write_bytes((made.folder / "fake.pdiparams").read_bytes() + b"more")
    with pytest.raises(paddle_format.QuantizationError, match=r"longer\.pdiparams: .*\d"):
        paddle_format.read_parameters(longer, program)


def test_weights_take_one_byte(made: tiny.Quantized) -> None:
    program, values = parameters(made.folder / int8.PREFIX)
    packed = [name for name in values if name.endswith(".int8")]
    assert len(packed) == len(weights.int8_ops(program)) == made.audit.int8_ops
    assert all(values[name].dtype == np.int8 for name in packed)
    wide = sum(4 * values[name].size for name in packed)
    assert (made.folder / "model.pdiparams").stat().st_size < 0.3 * wide


def test_matrices_are_scaled_by_their_own_columns(made: tiny.Quantized) -> None:
    program, values = parameters(made.folder / int8.PREFIX)
    (matrix,) = (op for op in weights.int8_ops(program) if op.type == "fc")
    stored = values[f"{weights.weight_name(matrix)}.int8"]
    assert (np.abs(stored.astype(int)).max(axis=0) == 127).all()
    assert made.audit.corrected["matrix_scales"] == 1


def test_paddle_still_reads_matrices_transposed(
    made: tiny.Quantized, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If this test fails, Paddle was fixed and the correction can be removed."""
    monkeypatch.setattr(int8, "correct_matrix_scales", lambda prefix: 0)
    shape = ["conv2d", "matmul_v2", "elementwise_add"]
    _, uncorrected = int8.build(made.folder / "fake", tmp_path, shape, made.images)
    wrong, right = tiny.error(uncorrected, made.fake), tiny.error(made.int8, made.fake)
    assert right < wrong


@pytest.mark.parametrize("name", ["fake", int8.PREFIX])
def test_quantized_models_are_no_source(made: tiny.Quantized, name: str) -> None:
    with pytest.raises(DataError, match=rf"/{name}: .*quantize|/{name}: .*fused_conv2d"):
        tiny.open_tiny(name=None, inference_model=made.folder / name)
