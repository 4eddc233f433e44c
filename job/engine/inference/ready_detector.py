"""Checks an exported detector without importing Paddle, so that planning can reject it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from job.engine.inference.decoding import check_heads, find_decoding, image_of
from job.engine.inference.detector_heads import heads_of
from job.engine.inference.model_graph import ModelGraph, graph_of_pir, graph_of_program
from job.engine.inference.pir_file import SUFFIX
from job.engine.inference.pir_graph import read_graph
from job.engine.inference.ready_model import read_ready_model
from job.errors import DataError

if TYPE_CHECKING:
    from job.detection.decode import Head


def check_ready_detector(path: Path, heads: Sequence["Head"], classes: int) -> None:
    """Check the inputs, the decoding and the heads of a saved model.

    Args:
        path: a ``.pdmodel`` or ``.json`` file.
        heads: heads of the manifest, the coarsest first; empty for a model with any outputs.
        classes: number of classes of the heads.

    Raises:
        DataError: the file is no Paddle program, or the model has other inputs, other heads or
            another decoding than expected.
        UsageError: an output of the detector has no head.
        OSError: the file cannot be read.
    """
    graph = _read(path)
    if image_of(graph) is None:
        found = ", ".join(f"{name} {list(graph.shapes.get(name, ()))}" for name in graph.inputs)
        raise DataError(
            f"{path}: expected exactly one input [N, channels, height, width], found {found}",
            "Give a model that reads one batch of images.",
        )
    decoding = find_decoding(graph, path)
    if not heads:
        return
    if decoding is None:
        _check_channels(graph, heads, classes, path)
    else:
        check_heads(decoding, heads, classes, path)
    heads_of(graph, graph.outputs if decoding is None else decoding.ends)


def _check_channels(
    graph: ModelGraph, heads: Sequence["Head"], classes: int, source: object
) -> None:
    """Check the outputs of a detector without decoding, which does not contain its anchors.

    Raises:
        DataError: the numbers of outputs or of their channels differ from the manifest.
    """
    shapes = [list(graph.shapes.get(name, ())) for name in graph.outputs]
    expected = [head.channels(classes) for head in heads]
    if [shape[1:2] for shape in shapes] != [[channels] for channels in expected]:
        raise DataError(
            f"{source}: the outputs have shapes {shapes}, expected {expected} channels in this "
            f"order, which is the number of a head's anchors x (5 + {classes} classes)",
            "Set /model/classes and /detection/anchors to the model's classes and anchors.",
        )


def _read(path: Path) -> ModelGraph:
    if path.suffix == SUFFIX:
        return graph_of_pir(read_graph(path))
    return graph_of_program(read_ready_model(path))
