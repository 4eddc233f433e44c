"""The search of /quantize/fallback keeps ops of every kind of network in FP32."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import tiny
from short_networks import shortened
from tiers import full_but

from job.data import packed
from job.engine.int8 import build as int8
from job.engine.int8.expected import expected_outputs
from job.engine.training import baseline
from job.manifest import parse
from job.stages.fallback_search import fp32_ops, search
from job.stages.int8_fallback import Trials
from job.stages.stage import SELECTION, StageOutput

pytestmark = pytest.mark.engine

TRIES = 3
TYPES = tiny.SETTINGS["quantize_op_types"]
# Network -> width.
NETWORKS = {
    "mobilenet_v1": 0.25,
    "mobilenet_v2": 0.35,
    "mobilenet_v3_small": 0.5,
    "shufflenet_v2_x0_25": 1.0,
    "resnet18": 0.25,
}
SHAPE = (3, 64, 64)
CLASSES = 10


def trials_of(made: tiny.Quantized, folder: Path) -> Trials:
    """Return the trials of a quantized network; the labels have no meaning."""
    document = {
        "version": 1,
        "name": "tiny",
        "model": {"name": "convnet", "classes": CLASSES, "input_shape": list(SHAPE)},
        "data": {"format": "digits", "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    labels = np.arange(len(made.images)) % CLASSES
    packed.write(folder / SELECTION, [(made.images, labels)], shape=SHAPE, transform="none")
    paths = {"prepare": folder, "baseline": folder / "fp32", "convert": folder}
    inputs = {stage: StageOutput(path, {}) for stage, path in paths.items()}
    manifest = parse(document, "m.json", Path("/"))
    return Trials(manifest, inputs, made.images, folder / "trial", tiny.News())


@pytest.mark.parametrize("name", full_but(NETWORKS, ["resnet18"]))
def test_search_keeps_the_worst_ops_in_fp32(name, tmp_path):
    session = tiny.session_of(lambda: shortened(name, NETWORKS[name]), shape=SHAPE)
    (tmp_path / "fp32").mkdir()
    baseline.export(session, tmp_path / "fp32")
    made = tiny.quantize(session, tmp_path, 1.0)
    base = tiny.error(tiny.scores(tmp_path / int8.PREFIX, "int8", made.images), made.fake)
    for suffix in (".pdmodel", ".pdiparams"):
        (tmp_path / f"fake{suffix}").replace(tmp_path / f"{int8.PREFIX}{suffix}")
    # No model reaches this drop, and each try takes one second of this clock.
    result = search(
        trials_of(made, tmp_path).score,
        max_top1_drop=-1000.0,
        max_seconds=TRIES,
        on_try=lambda _: None,
        clock=itertools.count().__next__,
    )
    assert result is not None
    ops = fp32_ops(result.tries)
    assert len(set(ops)) == TRIES - 1
    (tmp_path / "final").mkdir()
    fake = tmp_path / int8.PREFIX
    audit, _ = int8.build(fake, tmp_path / "final", TYPES, made.images, skip_ops=ops)
    assert set(ops) <= {left["op"] for left in audit.left_in_fp32}
    (expected,) = expected_outputs(fake, made.images, TYPES, skip_ops=ops)
    found = tiny.scores(tmp_path / "final" / int8.PREFIX, "int8", made.images)
    assert tiny.error(found, expected) < 1.5 * base + 0.02
