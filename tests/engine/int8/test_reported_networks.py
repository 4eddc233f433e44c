"""Each network that was reported as wrong or unreadable is right in INT8, after training.

The names are those of the reports. ``own_networks`` contains the networks.
"""

from pathlib import Path

import numpy as np
import pytest
import tiny
from tiers import full_but

from job.data import packed, sources
from job.engine.inference import predictor
from job.engine.int8 import build as int8
from job.engine.training import baseline
from job.engine.training.schedule import Schedule
from job.engine.training.session import Session
from job.host import read_host
from job.profile.record import trace
from job.stats import topk_correct
from job.tasks.classification import agreement

pytestmark = pytest.mark.engine

REPORTED = {
    "scale_between": "factor_between",
    "scale_residual": "scaled_residual",
    "square_linear": "square_matrix",
    "se_sigmoid": "sigmoid_gate",
    "vit_function": "attention_by_function",
    "vit_operator": "attention_by_operator",
    "bn_without_affine": "batch_norm_without_affine",
    "stochastic_depth": "stochastic_depth",
    "buffers": "buffers",
    "dict_output": "dict_output",
    "tied_weight": "tied_weight",
    "torch_linear": "transposed_matrices",
    "linear3d": "matrices_without_bias",
    "residual_chain": "sum_read_by_difference",
    "split_residual": "sum_read_by_concatenation",
    "weight_norm": "normalized_weights",
}
# test_tracing.py checks that these are rejected, and that the message names the construct.
REJECTED = {"nhwc": "channels_last", "data_dependent_branch": "branch_on_value"}
IMAGES = 400
STEPS = 200
# Without VNNI, the weights of matrix products use half of their steps, and oneDNN halves others.
LARGEST_DROP = 1.0 if read_host().has_vnni else 2.0
CHEAP = ["scale_residual", "vit_function", "tied_weight"]


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits as images float32 [N, 1, 8, 8] and labels int64, shuffled."""
    source = sources.digits(1)
    order = np.random.default_rng(0).permutation(len(source.labels))
    images = (source.images.transpose(0, 3, 1, 2) / 127.5 - 1).astype("float32")
    return images[order], source.labels[order]


class Digits(tiny.Batches):
    """A loader of the digits that are not tested."""

    def __init__(self) -> None:
        super().__init__(batch=32)
        images, labels = digits()
        self.images, self.labels = images[IMAGES:], labels[IMAGES:]
        self.batches_per_epoch = len(self.labels) // self.batch


def convert(session: Session, folder: Path) -> tuple[Path, Path]:
    """Train a network and quantize it; return the prefixes of the fake-quantized and INT8 model."""
    (images, labels), loader = digits(), Digits()
    files = {"selection": images[:IMAGES], "calibration": loader.images[:64]}
    for name, part in files.items():
        packed.write(
            folder / f"{name}.bin",
            [(part, labels[: len(part)])],
            shape=tiny.SHAPE,
            transform="none",
        )
    fp32, fake, saved = (folder / name for name in ("fp32", "fake", "int8"))
    for path in (fp32, fake, saved):
        path.mkdir()
    recipe = tiny.recipe(max_iters=STEPS, schedule=Schedule("constant", 0.03, (), 0.1, 0.0))
    selection = folder / "selection.bin"
    baseline.train(
        session, recipe, loader=loader, selection=selection, out=fp32, events=tiny.News()
    )
    baseline.export(session, fp32)
    tiny.convert_without_training(fp32, folder / "calibration.bin", fake)
    types = tiny.SETTINGS["quantize_op_types"]
    int8.build(fake / int8.PREFIX, saved, types, files["calibration"][:16])
    return fake / int8.PREFIX, saved / int8.PREFIX


def test_computed_weights_are_quantized_without_training(tmp_path):
    target = "own_networks:normalized_weights"
    _, saved = convert(tiny.open_tiny(name=None, callable_=target, classes=10), tmp_path)
    ran = trace(saved, predictor.INT8, tiny.SHAPE)
    products = [each for each in ran if each.kind in ("convolution", "inner_product", "matmul")]
    assert len(products) == 5
    assert all(each.is_int8 for each in products)


def test_values_far_from_zero_are_not_clipped(tmp_path):
    target = "own_networks:values_far_from_zero"
    fake, _ = convert(tiny.open_tiny(name=None, callable_=target, classes=10), tmp_path)
    images = digits()[0][:IMAGES]
    expected = tiny.scores(tmp_path / "fp32" / int8.PREFIX, predictor.NATIVE, images)
    found = tiny.scores(fake, predictor.FAKE_QUANTIZED, images)
    assert agreement((found,), (expected,)).signal_to_noise_db > 20


@pytest.mark.parametrize("name", full_but(REPORTED, CHEAP))
def test_int8_classifies_as_the_fake_quantized_model(name, tmp_path):
    target = f"own_networks:{REPORTED[name]}"
    fake, saved = convert(tiny.open_tiny(name=None, callable_=target, classes=10), tmp_path)
    images, labels = (part[:IMAGES] for part in digits())
    expected = tiny.scores(fake, predictor.FAKE_QUANTIZED, images)
    found = tiny.scores(saved, predictor.INT8, images)
    right = [topk_correct(scores, labels, 1).sum() for scores in (expected, found)]
    assert right[0] > IMAGES / 5
    assert agreement((found,), (expected,)).signal_to_noise_db >= 20
    assert 100 * (right[0] - right[1]) / IMAGES <= LARGEST_DROP
