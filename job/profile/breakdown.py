"""Breaks down the time of a call: primitives in FP32 and INT8, and time outside primitives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job.host import read_host
from job.profile.advice import advise
from job.profile.evidence import Evidence
from job.profile.kinds import REORDER, kind_of, kinds_record, total_ms
from job.profile.layers import Layer, match
from job.profile.onednn_log import COMPUTE, INT8_TYPES, Primitive
from job.profile.record import Recording, record

TIMED_CALLS, LOGGED_CALLS = 20, 10
SLOWEST = 10


def measure(
    fp32_prefix: Path,
    int8_prefix: Path,
    input_shape: tuple[int, int, int],
    isa_cap: str = "all",
    *,
    batch_size: int = 1,
    threads: int = 1,
) -> dict[str, Any]:
    """Run both models and break down the time of a call.

    Args:
        fp32_prefix: path of the saved FP32 model without suffix; it runs in oneDNN's kernels.
        int8_prefix: path of the saved INT8 model without suffix.
        input_shape: (channels, height, width).
        isa_cap: a value of the manifest's ``benchmark.isa``.
        batch_size: images of a call.
        threads: threads of each model.

    Returns:
        An item of report.json's ``breakdown``.

    Raises:
        QuantizationError: a process that runs a model failed.
    """
    from job.engine.compare.op_graph import read_op_graph

    fp32, int8 = (
        record(
            prefix,
            mode,
            input_shape,
            timed=TIMED_CALLS,
            logged=LOGGED_CALLS,
            isa_cap=isa_cap,
            batch_size=batch_size,
            threads=threads,
        )
        for prefix, mode in ((fp32_prefix, "onednn"), (int8_prefix, "int8"))
    )
    graph = read_op_graph(fp32_prefix, int8_prefix)
    layers = match(fp32.primitives, int8.primitives, graph.layers)
    host = read_host()
    evidence = Evidence(
        isa_cap=isa_cap,
        batch_size=batch_size,
        primitives=int8.primitives,
        outside_ms=outside_ms(int8),
        layers=layers,
        left_in_fp32=left_in_fp32(int8.primitives, layers),
        islands=graph.islands,
        cpu_flags=host.flags,
        allocator=host.allocator,
    )
    return account(fp32, evidence)


def account(fp32: Recording, evidence: Evidence) -> dict[str, Any]:
    """Return the figures of both models and the advice, as an item of ``breakdown``."""
    slowest = sorted(evidence.layers, key=lambda layer: -layer.int8.milliseconds)[:SLOWEST]
    return {
        "isa_cap": evidence.isa_cap,
        "batch_size": evidence.batch_size,
        "fp32": kinds_record(fp32.primitives),
        "int8": kinds_record(evidence.primitives),
        "dispatch_ms": {"fp32": outside_ms(fp32), "int8": evidence.outside_ms},
        "reorder_share": round(evidence.reorder_share, 4),
        "slowest": [layer_record(layer) for layer in slowest],
        "left_in_fp32": [
            {"op": name, "kind": kind_of(p), "shape": p.shape, "milliseconds": p.milliseconds}
            for name, p in evidence.left_in_fp32
        ],
        "islands": [dict(island) for island in evidence.islands],
        "advice": advise(evidence),
    }


def outside_ms(model: Recording) -> float:
    """Return the milliseconds of a call that are not spent in oneDNN primitives."""
    return round(max(0.0, model.milliseconds - total_ms(model.primitives)), 4)


def left_in_fp32(
    primitives: Sequence[Primitive], layers: Sequence[Layer]
) -> list[tuple[str, Primitive]]:
    """Return name (empty if unknown) and primitive of each op in FP32, the slowest first."""
    items = [(layer.name, layer.int8) for layer in layers if not layer.int8.is_int8]
    items += [
        ("", p)
        for p in primitives
        if p.kind not in (*COMPUTE, REORDER) and p.data_type not in INT8_TYPES
    ]
    return sorted(items, key=lambda item: -item[1].milliseconds)


def layer_record(layer: Layer) -> dict[str, Any]:
    """Return an item of ``slowest``."""
    return {
        "op": layer.name,
        "shape": layer.int8.shape,
        "fp32_ms": layer.fp32.milliseconds if layer.fp32 else None,
        "int8_ms": layer.int8.milliseconds,
        "ratio": round(layer.ratio, 3) if layer.ratio else None,
        "implementation": layer.int8.implementation,
        "folded": list(layer.int8.post_ops),
    }
