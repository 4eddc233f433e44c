"""Networks of each kind that was reported as wrong or unreadable, through the command line."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import MANIFEST, SLOW, Run, job, record_of, write_manifest

pytestmark = [pytest.mark.e2e, pytest.mark.full]

KINDS = {
    "factor": "scaled_residual",
    "square matrix": "square_matrix",
    "attention": "attention_by_operator",
    "gate": "sigmoid_gate",
    "batch norm without affine": "batch_norm_without_affine",
    "training mode": "stochastic_depth",
    "buffers": "buffers",
    "dict": "dict_output",
    "tied weight": "tied_weight",
    "transposed weight": "transposed_matrices",
    "sum without scale": "sum_read_by_difference",
}
# Network -> exit code, part of the message.
REJECTED = {
    "channels_last": (2, "NHWC"),
    "branch_on_value": (2, "own_networks.py:"),
    "changed_in_place": (2, "relu_"),
    "shared_by_convolutions": (2, "share"),
}
LARGEST_DROP = 2.0 if SLOW else 1.0


@pytest.fixture
def folder(copy_until: Callable[..., Run]) -> Path:
    """The digits are prepared; the networks lie beside the manifest."""
    folder = copy_until("data").folder
    spec = importlib.util.find_spec("own_networks")
    assert spec is not None
    assert spec.origin is not None
    shutil.copy(spec.origin, folder)
    return folder


def run(folder: Path, network: str, *arguments: str, expect: int = 0) -> str:
    model = {**MANIFEST["model"], "name": None, "width": 1.0, "callable": f"own_networks:{network}"}
    training = {"max_iters": 120, "batch_size": 32, "base_lr": 0.03}
    baseline = {"train": {**MANIFEST["baseline"]["train"], **training}}
    write_manifest(folder, model=model, baseline=baseline, quantize={"strategy": "post"})
    return job("run", "m.json", "--allow-code", *arguments, cwd=folder, expect=expect).err


@pytest.mark.parametrize("kind", KINDS)
def test_int8_is_as_accurate_as_the_fake_quantized_model(kind: str, folder: Path) -> None:
    run(folder, KINDS[kind], "--until", "accuracy")
    accuracy = record_of(folder / "out", "accuracy")
    assert accuracy["qat_fake"]["top1"] - accuracy["int8"]["top1"] <= LARGEST_DROP
    found = record_of(folder / "out", "int8")["agreement"]
    assert found["int8_fake"]["signal_to_noise_db"] >= 20


@pytest.mark.parametrize("network", REJECTED)
def test_the_message_names_the_construct(network: str, folder: Path) -> None:
    code, part = REJECTED[network]
    assert part in run(folder, network, "--until", "baseline", expect=code)
