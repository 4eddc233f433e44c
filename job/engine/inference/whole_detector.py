"""Adds decoding and NMS of an exported detector to the saved model of its network.

The whole detector has the inputs and outputs of the exported detector, with their names. Decoding
and NMS stay in FP32.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from job.engine.inference.decoding import Decoding, boxes_of, find_decoding, sizes_of
from job.engine.inference.detector import open_detector
from job.engine.inference.model_graph import ModelGraph, graph_of_program
from job.engine.inference.paddle_format import (
    NOT_STORED,
    OpDesc,
    ProgramDesc,
    read_parameters,
    read_program,
    write_model,
)
from job.engine.inference.pir_format import legacy_model
from job.engine.inference.predictor import NATIVE, Predictor, configuration
from job.engine.inference.saved_model import NETWORK
from job.errors import QuantizationError

# Prefixes of variables that would have the name of another variable of the whole detector.
_DECODING, _NETWORK = "decoding.", "network."


@dataclass(frozen=True, eq=False)
class Exported:
    """An exported detector.

    Attributes:
        program: its program in the legacy format.
        graph: the same program.
        decoding: the part behind its network.
        weights: values of the variables that this part reads from ``.pdiparams``.
    """

    program: ProgramDesc
    graph: ModelGraph
    decoding: Decoding
    weights: Mapping[str, np.ndarray]


def read_exported(prefix: Path) -> Exported | None:
    """Read an exported detector.

    Args:
        prefix: path without ``.pdmodel`` or ``.json``, and without ``.pdiparams``.

    Returns:
        None if the model has one input and does not decode.
    """
    with legacy_model(prefix) as legacy:
        program = read_program(Path(f"{legacy}.pdmodel"))
        graph = graph_of_program(program)
        decoding = find_decoding(graph, prefix)
        if decoding is None:
            return None
        used = {name for op in decoding.ops for name in op.reads} & graph.weights
        values = read_parameters(Path(f"{legacy}.pdiparams"), program) if used else {}
    return Exported(program, graph, decoding, {name: values[name] for name in sorted(used)})


def complete(
    saved: Path, exported: Path, images: np.ndarray, mode: str
) -> tuple[dict[str, Any], dict[str, int]] | None:
    """Turn the saved model of an exported detector's network into the whole detector.

    Args:
        saved: prefix of the saved model.
        exported: prefix of the exported detector.
        images: float32 [N, C, H, W], to compare both.
        mode: mode of the predictor, such as ``int8``.

    Returns:
        What :func:`check_whole` returns, and the number of the ops that decode by type. None if the
        exported model has no decoding; then the saved model is not changed.

    Raises:
        QuantizationError: the whole detector computes other boxes than its decoding.
    """
    detector = read_exported(exported)
    if detector is None:
        return None
    add_decoding(saved, detector)
    return check_whole(saved, detector, images, mode), dict(Counter(detector.decoding.kinds))


def add_decoding(saved: Path, exported: Exported) -> None:
    """Write the whole detector over the saved model of its network.

    The network alone is moved to ``NETWORK``. Both programs read the same ``.pdiparams``.

    Args:
        saved: prefix of the model, with the ends of the network as its outputs.
        exported: the exported detector.
    """
    network = read_program(Path(f"{saved}.pdmodel"))
    values = read_parameters(Path(f"{saved}.pdiparams"), network)
    own = graph_of_program(network)
    public = {*exported.graph.inputs, *exported.graph.outputs} - set(exported.decoding.ends)
    renamed = {name: f"{_NETWORK}{name}" for name in public & own.shapes.keys()}
    (image,) = own.inputs
    renamed[image] = exported.decoding.image
    ends = [renamed.get(name, name) for name in own.outputs]
    tail = tail_of(exported, dict(zip(exported.decoding.ends, ends, strict=True)), own)
    whole = ProgramDesc.FromString(network.SerializeToString())
    block = whole.blocks[0]
    kept = [_copy(op, renamed) for op in block.ops if op.type not in NOT_STORED]
    for variable in block.vars:
        variable.name = renamed.get(variable.name, variable.name)
    declared = {variable.name for variable in block.vars}
    block.vars.extend(v for v in tail.variables if v.name not in declared)
    del block.ops[:]
    block.ops.extend([*tail.feeds, *kept, *tail.ops, *tail.fetches])
    known = {pair.op_name for pair in whole.op_version_map.pair}
    versions = exported.program.op_version_map.pair
    whole.op_version_map.pair.extend(pair for pair in versions if pair.op_name not in known)
    # Both programs must declare all parameters, because the file contains no names.
    stored = {v.name for v in network.blocks[0].vars}
    network.blocks[0].vars.extend(
        v for v in tail.variables if v.persistable and v.name not in (*stored, *NOT_STORED)
    )
    saved.with_name(NETWORK).write_bytes(network.SerializeToString())
    write_model(saved, whole, {**values, **tail.weights})


@dataclass(frozen=True, eq=False)
class Tail:
    """Decoding and NMS of an exported detector with the names of the whole detector.

    Attributes:
        feeds: feed ops of the exported detector.
        ops: the ops that decode.
        fetches: fetch ops of the exported detector.
        variables: the variables of all these ops, except the ends of the network.
        weights: values of the persistable variables.
    """

    feeds: Sequence[OpDesc]
    ops: Sequence[OpDesc]
    fetches: Sequence[OpDesc]
    variables: Sequence[Any]
    weights: Mapping[str, np.ndarray]


def tail_of(exported: Exported, ends: Mapping[str, str], network: ModelGraph) -> Tail:
    """Return decoding and NMS of an exported detector.

    Args:
        exported: the detector.
        ends: the ends of the exported network -> the variables of the network that replace them.
        network: the network in front. Variables with names that it has are renamed.
    """
    every = exported.program.blocks[0].ops
    chosen = [every[op.index] for op in exported.decoding.ops]
    public = {*exported.graph.inputs, *exported.graph.outputs, *NOT_STORED}
    used = {name for op in chosen for slot in (*op.inputs, *op.outputs) for name in slot.arguments}
    names = {
        name: f"{_DECODING}{name}" if name in network.shapes and name not in public else name
        for name in used
    } | dict(ends)
    feeds = [_copy(op, names) for op in every if op.type == "feed"]
    fetches = [_copy(op, names) for op in every if op.type == "fetch"]
    needed = (used | set(exported.graph.inputs) | set(NOT_STORED)) - set(exported.decoding.ends)
    variables = []
    for variable in exported.program.blocks[0].vars:
        if variable.name in needed:
            copy = type(variable).FromString(variable.SerializeToString())
            copy.name = names.get(variable.name, variable.name)
            variables.append(copy)
    weights = {names[name]: value for name, value in exported.weights.items()}
    return Tail(feeds, [_copy(op, names) for op in chosen], fetches, variables, weights)


def _copy(op: OpDesc, names: Mapping[str, str]) -> OpDesc:
    copy = OpDesc.FromString(op.SerializeToString())
    for slot in (*copy.inputs, *copy.outputs):
        slot.arguments[:] = [names.get(name, name) for name in slot.arguments]
    return copy


def write_tail(exported: Exported, prefix: Path) -> None:
    """Write decoding and NMS alone as a model, whose inputs are the ends and all other inputs."""
    program = ProgramDesc.FromString(exported.program.SerializeToString())
    ends = exported.decoding.ends
    nothing = ModelGraph([], [], [], {}, frozenset())
    tail = tail_of(exported, {}, nothing)
    feeds: list[OpDesc] = []
    for column, name in enumerate([*exported.graph.inputs, *ends]):
        feeds.append(_copy(tail.feeds[0], {}))
        feeds[-1].outputs[0].arguments[:] = [name]
        for item in feeds[-1].attrs:
            if item.name == "col":
                item.i = column
    block = program.blocks[0]
    added = [v for v in block.vars if v.name in ends]
    added = [type(v).FromString(v.SerializeToString()) for v in added]
    del block.ops[:], block.vars[:]
    block.ops.extend([*feeds, *tail.ops, *tail.fetches])
    block.vars.extend([*tail.variables, *added])
    write_model(prefix, program, tail.weights)


def check_whole(saved: Path, exported: Exported, images: np.ndarray, mode: str) -> dict[str, Any]:
    """Compare the whole detector with the decoding of its own network's outputs.

    Args:
        saved: prefix of the model that ``add_decoding`` wrote.
        exported: the exported detector.
        images: float32 [N, C, H, W]; each is run alone, because exports can have a fixed batch.
        mode: mode of the predictor, such as ``int8``.

    Returns:
        ``inputs`` and ``outputs``, the names in the order of the model; ``boxes`` and ``counts``,
        the outputs with boxes [M, 6] and with the number of boxes of each image, or None;
        ``batch``, the only batch size that the model accepts, or None; ``compared``, the number of
        rows of the first output that were compared.

    Raises:
        QuantizationError: the outputs differ.
    """
    network = Predictor(configuration(saved, mode, threads=1))
    whole = open_detector(saved, mode, threads=1)
    compared = 0
    with tempfile.TemporaryDirectory(prefix="job-decoding-") as folder:
        write_tail(exported, Path(folder) / "tail")
        tail = open_detector(Path(folder) / "tail", NATIVE, threads=1)
        for index in range(len(images)):
            image = images[index : index + 1]
            given = {exported.decoding.image: image, **sizes_of(image)}
            heads = dict(zip(exported.decoding.ends, network.outputs(image), strict=True))
            found, expected = whole.run(given), tail.run({**given, **heads})
            compared += len(expected[0])
            for name, one, other in zip(whole.names, found, expected, strict=True):
                if one.shape != other.shape or not np.allclose(one, other, rtol=1e-3, atol=1e-2):
                    raise QuantizationError(
                        f"{saved}: the output {name} differs from the decoding of the network's "
                        f"own outputs: shape {list(one.shape)}, expected {list(other.shape)}",
                        "Report this as a bug, with the exported detector.",
                    )
    boxes, counts = boxes_of(exported.graph)
    batch = exported.graph.shapes[exported.decoding.image][0]
    return {
        "inputs": list(whole.inputs),
        "outputs": list(whole.names),
        "boxes": boxes,
        "counts": counts,
        "batch": None if batch == -1 else int(batch),
        "compared": compared,
    }
