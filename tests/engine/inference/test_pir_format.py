"""A model that Paddle 3 saved gives the same scores after its translation to the legacy format."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pir_networks
import pytest
import tiny
from paddle import static  # noqa: TID251
from paddle.base.framework import OpProtoHolder  # noqa: TID251

from job.engine.inference.pir_file import program_file, read_pir
from job.engine.inference.pir_graph import read_graph
from job.engine.inference.pir_ops import SIGNATURES
from job.engine.training import programs
from job.engine.training.baseline import export
from job.errors import DataError
from job.process.environment import environment

pytestmark = pytest.mark.engine
# Largest difference of the scores, relative to the largest score.
TOLERANCE = 1e-4


def save(folder: Path, *names: str) -> Path:
    """Save networks in a process in which PIR is enabled."""
    command = [sys.executable, pir_networks.__file__, str(folder), *names]
    variables = environment(1) | {"FLAGS_enable_pir_api": "1"}
    subprocess.run(command, env=variables, check=True, capture_output=True, timeout=240)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All networks."""
    folder = tmp_path_factory.mktemp("pir")
    return save(folder, *pir_networks.NAMES, *pir_networks.UNSUPPORTED)


def scores(prefix: Path, images: np.ndarray) -> list[np.ndarray]:
    """Return all outputs of the translated model."""
    scope, executor = static.Scope(), static.Executor(programs.cpu())
    program, feeds, _ = programs.load_inference_model(prefix, executor, scope)
    fetches = [op.input("X")[0] for op in program.global_block().ops if op.type == "fetch"]
    with static.scope_guard(scope):
        return executor.run(program, feed={feeds[0]: images}, fetch_list=fetches)


@pytest.mark.parametrize("name", pir_networks.NAMES)
def test_scores_are_equal(saved: Path, name: str) -> None:
    folder = saved / name
    images = np.load(folder / "images.npy")
    expected = list(np.load(folder / "scores.npz").values())
    found = scores(folder / "inference", images)
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        difference = np.abs(ours - theirs).max()
        assert difference <= TOLERANCE * np.abs(theirs).max()


@pytest.mark.parametrize("name", ["mobilenet_v1", "resnet18"])
def test_a_network_of_paddle_3_is_a_source(saved: Path, name: str, tmp_path: Path) -> None:
    folder = saved / name
    session = tiny.open_tiny(
        name=None,
        inference_model=folder / "inference",
        classes=4,
        input_shape=tuple(pir_networks.image_shape(name)),
    )
    export(session, tmp_path)
    (expected,) = np.load(folder / "scores.npz").values()
    found = tiny.scores(tmp_path / "model", "native", np.load(folder / "images.npy"))
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize(("name", "kind"), pir_networks.UNSUPPORTED.items())
def test_unsupported_ops_are_named(saved: Path, name: str, kind: str) -> None:
    with pytest.raises(DataError, match=kind) as caught:
        read_graph(saved / name / "inference.json")
    assert "FLAGS_enable_pir_api=0" in caught.value.hint


def test_the_advice_of_the_message_works(tmp_path: Path) -> None:
    code = (
        "import paddle, pir_networks\n"
        "network = pir_networks.build('linear')\n"
        "spec = paddle.static.InputSpec([None, 3, 8, 8], 'float32', 'x')\n"
        f"paddle.jit.save(network, {str(tmp_path / 'inference')!r}, [spec])\n"
    )
    variables = environment(1) | {"FLAGS_enable_pir_api": "0"}
    folder = Path(pir_networks.__file__).parent
    subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=folder, check=True, capture_output=True
    )
    assert program_file(tmp_path / "inference").suffix == ".pdmodel"
    programs.load_inference_model(
        tmp_path / "inference", static.Executor(programs.cpu()), static.Scope()
    )


def test_every_op_of_the_table_is_in_a_network(saved: Path) -> None:
    kinds = {
        op.kind.removeprefix("pd_op.")
        for name in pir_networks.NAMES
        for op in read_pir(saved / name / "inference.json")
    }
    # tests/engine/detection/test_exported.py exports detectors.
    detectors = {"yolo_box", "box_coder", "prior_box", "multiclass_nms3", "matrix_nms"}
    assert SIGNATURES.keys() - detectors <= kinds


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_installed_paddle_has_every_slot_of_the_table(name: str) -> None:
    signature = SIGNATURES[name]
    proto = OpProtoHolder.instance().get_op_proto(signature.kind)
    inputs, outputs = {v.name for v in proto.inputs}, {v.name for v in proto.outputs}
    lists = {v.name for v in (*proto.inputs, *proto.outputs) if v.duplicable}
    attributes = {attribute.name for attribute in proto.attrs}
    for slots, known in ((signature.inputs, inputs), (signature.outputs, outputs)):
        assert {slot.tensor for slot in slots} <= {*known, ""}
        assert {slot.tensors for slot in slots} <= {*(known & lists), ""}
    assert {slot.attribute for slot in signature.inputs} <= {*attributes, ""}
    assert set(signature.renamed.values()) <= {*attributes, ""}
