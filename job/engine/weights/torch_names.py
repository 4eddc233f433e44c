"""Converts PyTorch's names and layouts of weights to Paddle's."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from job.engine.weights.torchvision_names import from_torchvision

# Suffixes of batch-norm statistics in PyTorch and in Paddle.
_STATISTICS = {".running_mean": "._mean", ".running_var": "._variance"}
_UNUSED = ".num_batches_tracked"
# Added to each name by torch.nn.DataParallel.
_PREFIX = "module."
_MATRIX = 2


def for_paddle(
    given: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    is_torch: bool,
) -> dict[str, NDArray[Any]]:
    """Return arrays by Paddle's names and in Paddle's layout.

    Paddle stores the weight of a fully connected layer as [inputs, outputs], PyTorch as [outputs,
    inputs]. The shapes of the file decide which layout it has. ``is_torch`` decides if each of
    these weights is square.

    Args:
        given: arrays by PyTorch's or Paddle's names.
        wanted: expected shape of each weight of the network, by Paddle's names.
        is_torch: whether a tool for PyTorch wrote the file.
    """
    prefix = _PREFIX if given and all(name.startswith(_PREFIX) for name in given) else ""
    renamed = {
        _paddle_name(name.removeprefix(prefix)): value
        for name, value in given.items()
        if not name.endswith(_UNUSED)
    }
    named = dict(from_torchvision(renamed, list(wanted)))
    matrices = [
        name for name, shape in wanted.items() if len(shape) == _MATRIX and _is_matrix(named, name)
    ]
    if _is_transposed({name: named[name].shape for name in matrices}, wanted, is_torch):
        named |= {name: named[name].T for name in matrices}
    return named


def _paddle_name(name: str) -> str:
    for theirs, ours in _STATISTICS.items():
        if name.endswith(theirs):
            return name.removesuffix(theirs) + ours
    return name


def _is_matrix(named: Mapping[str, NDArray[Any]], name: str) -> bool:
    return name in named and named[name].ndim == _MATRIX


def _is_transposed(
    shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], default: bool
) -> bool:
    """Return whether matrices are [outputs, inputs]; only the inputs must fit the network."""
    for name, (rows, columns) in shapes.items():
        inputs = wanted[name][0]
        if (rows == inputs) != (columns == inputs):
            return columns == inputs
    return default
