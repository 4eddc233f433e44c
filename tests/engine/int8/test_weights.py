"""Weights are stored as bytes, and matrices have correct scales."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from paddle import ParamAttr, nn, scale  # noqa: TID251

from job.engine.inference import paddle_format, predictor
from job.engine.int8 import build as int8
from job.engine.int8 import weights
from job.engine.quantize.calibration import Method
from job.errors import DataError
from job.host import read_host

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tiny.Quantized:
    """An INT8 model whose weights are larger than its program."""
    folder = tmp_path_factory.mktemp("weights")
    return tiny.quantize(tiny.open_tiny(width=4.0), folder, method=Method(gptq=False))


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


def matrix_of(folder: Path) -> tuple[Any, np.ndarray]:
    """Return the fully connected op of an INT8 model, and its INT8 weights."""
    program, values = parameters(folder / int8.PREFIX)
    (matrix,) = (op for op in weights.int8_ops(program) if op.type == "fc")
    return matrix, values[f"{weights.weight_name(matrix)}.int8"].astype(int)


def test_matrices_are_scaled_by_their_own_columns(made: tiny.Quantized) -> None:
    # Without VNNI, weights of half as many steps avoid overflow.
    largest = np.abs(matrix_of(made.folder)[1]).max(axis=0)
    assert (largest == (127 if read_host().has_vnni else 64)).all()
    assert made.audit.corrected["matrix_scales"] == 1


def test_paddle_still_reads_matrices_transposed(
    made: tiny.Quantized, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If this test fails, Paddle was fixed and the correction can be removed."""
    monkeypatch.setattr(int8, "restore_matrices", lambda *given, **options: 0)
    shape = ["conv2d", "matmul_v2", "elementwise_add"]
    int8.build(made.folder / "fake", tmp_path, shape, made.images)
    right, wrong = (
        np.array(weights.scale_attribute(matrix_of(folder)[0]).floats)
        for folder in (made.folder, tmp_path)
    )
    assert not np.allclose(wrong, right, rtol=1e-5)


@pytest.mark.parametrize("name", ["fake", int8.PREFIX])
def test_quantized_models_are_no_source(made: tiny.Quantized, name: str) -> None:
    with pytest.raises(DataError, match=rf"/{name}: .*quantize|/{name}: .*fused_conv2d"):
        tiny.open_tiny(name=None, inference_model=made.folder / name)


def snr_db(scores: np.ndarray, reference: np.ndarray) -> float:
    """The signal-to-noise ratio of centred scores [N, classes] in dB."""
    signal = reference - reference.mean(axis=1, keepdims=True)
    noise = scores - scores.mean(axis=1, keepdims=True) - signal
    return float(10 * np.log10((signal**2).sum() / (noise**2).sum()))


def square(classes: int = 10) -> nn.Layer:
    """A network with a square matrix whose columns have different ranges."""
    values = np.random.default_rng(0).normal(0, 0.06, (64, 64)) * np.geomspace(0.1, 3, 64)
    attribute = ParamAttr(initializer=nn.initializer.Assign(values.astype("float32")))
    first = nn.Sequential(nn.Conv2D(3, 4, 3, 5, bias_attr=False), nn.ReLU(), nn.Flatten())
    return nn.Sequential(first, nn.Linear(64, 64, attribute), nn.ReLU(), nn.Linear(64, classes))


def factor_behind(block: Callable[[Any], Any]) -> Callable[[], nn.Layer]:
    """A network whose ``block`` stands between two convolutions."""

    class Network(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2D(3, 8, 3, bias_attr=False)
            self.two = nn.Conv2D(8, 8, 3, bias_attr=False)
            self.head = nn.Linear(8, 10)

        def forward(self, x: Any) -> Any:
            x = block(nn.functional.relu(self.one(x)))
            return self.head(self.two(x).mean([2, 3]))

    return Network


NETWORKS = {
    "square matrix": square,
    "factor": factor_behind(lambda x: x * 8.0),
    "factor and bias": factor_behind(lambda x: x * 0.5 + 0.25),
    "bias before the factor": factor_behind(lambda x: scale(x, 3.0, 0.5, bias_after_scale=False)),
    "dropout that scales": factor_behind(nn.Dropout(0.4, mode="downscale_in_infer")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_int8_computes_what_was_trained(name: str, tmp_path: Path) -> None:
    made = tiny.quantize(tiny.session_of(NETWORKS[name]), tmp_path)
    saved = tiny.scores(tmp_path / int8.PREFIX, predictor.INT8, made.images)
    assert snr_db(saved, made.fake) > 24


def depthwise() -> nn.Layer:
    """A network with a depthwise convolution between two others."""
    return nn.Sequential(
        *(nn.Conv2D(3, 8, 3, bias_attr=False), nn.ReLU()),
        *(nn.Conv2D(8, 8, 3, groups=8, bias_attr=False), nn.ReLU()),
        *(nn.Conv2D(8, 8, 3, bias_attr=False), nn.ReLU()),
        *(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(8, 10)),
    )


def test_convolutions_in_fp32_keep_their_weights(tmp_path: Path) -> None:
    session = tiny.session_of(depthwise)
    made = tiny.quantize(session, tmp_path, skip_ops=["depthwise_conv2d"])
    saved = tiny.scores(tmp_path / int8.PREFIX, predictor.INT8, made.images)
    assert made.audit.fp32_ops == 1
    assert snr_db(saved, made.fake) > 24


def test_a_channel_without_weights_stays_zero() -> None:
    op = paddle_format.make_op("fused_conv2d", {"Filter": "w"}, {"Output": "y"}, {})
    # Paddle divides 127 by the largest weight of each channel.
    op.attrs.add(name="Scale_weights", type=4, floats=[127.0, float("inf")])
    weight = np.array([[[[1.0, -0.5]]], [[[0.0, 0.0]]]], "float32")
    program = paddle_format.ProgramDesc()
    program.blocks.add(idx=0, parent_idx=-1)
    found = {"w": weight}
    weights.store_as_int8(program, found, op)
    assert found["w.int8"].reshape(2, 2).tolist() == [[127, -64], [0, 0]]
    np.testing.assert_allclose(found["w.int8"] * found["w.scale"], weight, atol=0.005)
