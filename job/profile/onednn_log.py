"""Reads from oneDNN's log which primitives a model executes.

Format of a line: https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from job.isa import ISA_ALIASES, ISA_ORDER

COMPUTE = ("convolution", "inner_product", "matmul", "deconvolution")
INT8_TYPES = ("u8", "s8")
# Names that record_main prints after each call.
TIMED, LOGGED = "timed_call_ms", "logged_call_ms"


@dataclass(frozen=True)
class Primitive:
    """One execution of a primitive.

    Attributes:
        kind: oneDNN's kind, such as ``convolution``.
        implementation: the kernel, such as ``brgconv:avx512_core_vnni``.
        data_type: data type of the source, such as ``u8``, ``s8``, ``f32``.
        weights_type: data type of the weights, or empty.
        milliseconds: duration.
        source_format: memory layout of the source, such as ``acdb`` (channels last) or ``aBcd16b``
            (blocks of 16 channels).
        target_type: data type of the destination.
        target_format: memory layout of the destination.
        shape: sizes, such as ``mb1_ic64oc64_ih56oh56kh1``.
        post_ops: operations fused into the primitive, such as ``sum`` and ``relu``.
        is_scaled: whether it multiplies by scales, for example to quantize.
    """

    kind: str
    implementation: str
    data_type: str
    weights_type: str
    milliseconds: float
    source_format: str = ""
    target_type: str = ""
    target_format: str = ""
    shape: str = ""
    post_ops: tuple[str, ...] = ()
    is_scaled: bool = False

    @property
    def is_int8(self) -> bool:
        """Whether source and weights are 8-bit integers."""
        return self.data_type in INT8_TYPES and self.weights_type == "s8"

    @property
    def isa(self) -> str:
        """Instruction set of the kernel, such as ``avx512_core_vnni``; empty if unknown."""
        name = self.implementation.rpartition(":")[2]
        name = ISA_ALIASES.get(name, name)
        return name if name in ISA_ORDER else ""


def parse(lines: Iterable[str]) -> list[Primitive]:
    """Return the executed primitives in a log of ``ONEDNN_VERBOSE=1``."""
    primitives = []
    for line in lines:
        fields = line.rstrip("\n").split(",")
        if len(fields) < 11 or "exec" not in fields[:4] or not fields[0].endswith("verbose"):
            continue
        start = fields.index("exec") + 1
        kind, implementation, descriptors = fields[start + 1], fields[start + 2], fields[start + 4]
        attributes = fields[start + 5]
        tensors = _tensors(descriptors)
        # Some primitives name their tensor "data".
        source = next((tensors[name] for name in ("src", "src0", "data") if name in tensors), None)
        target = tensors.get("dst")
        primitives.append(
            Primitive(
                kind=kind,
                implementation=implementation,
                data_type=source[0] if source else "",
                weights_type=tensors.get("wei", ("", ""))[0],
                milliseconds=float(fields[-1]),
                source_format=source[1] if source else "",
                target_type=target[0] if target else "",
                target_format=target[1] if target else "",
                shape=fields[-2],
                post_ops=_post_ops(attributes),
                is_scaled="attr-scales:" in attributes,
            )
        )
    return primitives


def _tensors(descriptors: str) -> dict[str, tuple[str, str]]:
    """Return data type and format by tensor name.

    Args:
        descriptors: such as ``src:u8:a:blocked:acdb::f0 wei:s8...``; ``src_u8:a:blocked:acdb::f0``
            in the log of the OpenVINO engine in Paddle.
    """
    tensors = {}
    for part in descriptors.split():
        first, *rest = part.split(":")
        name, joined, data_type = first.partition("_")
        rest = [data_type, *rest] if joined else rest
        tensors[name] = (rest[0] if rest else "", rest[3] if len(rest) > 3 else "")
    return tensors


def _post_ops(attributes: str) -> tuple[str, ...]:
    """Return the names of fused operations.

    Args:
        attributes: such as ``attr-scales:src0:0:f32 attr-post-ops:sum:0.05+eltwise_relu``.
    """
    prefix = "attr-post-ops:"
    texts = [a.removeprefix(prefix) for a in attributes.split() if a.startswith(prefix)]
    names = (part.split(":")[0] for text in texts for part in text.split("+"))
    return tuple(name.removeprefix("eltwise_") for name in names)


def last_run(primitives: list[Primitive], runs: int) -> list[Primitive]:
    """Return the primitives of the last of several runs of a model.

    The first run also reorders weights. Later runs repeat the same sequence.

    Args:
        primitives: primitives of all runs.
        runs: number of runs, at least two.
    """
    computing = [i for i, primitive in enumerate(primitives) if primitive.kind in COMPUTE]
    per_run = len(computing) // runs
    if not per_run:
        return []
    # A run begins with reorders of its input, before the first computing primitive.
    length = computing[-per_run] - computing[-2 * per_run]
    return primitives[-length:]


def isa(primitives: Iterable[Primitive]) -> str:
    """Return the highest instruction set of convolutions and matrix products, or empty."""
    names = {p.isa for p in primitives if p.kind in COMPUTE and p.isa}
    return max(names, key=ISA_ORDER.index) if names else ""


def int8_isa(primitives: Sequence[Primitive]) -> str:
    """Return the highest instruction set of INT8 kernels; of all kernels if INT8's is unknown.

    oneDNN's reference kernels have no instruction set in the log; ``none`` if no kernel has one.
    """
    return isa(p for p in primitives if p.is_int8) or isa(primitives) or "none"


def summarize(primitives: Iterable[Primitive]) -> list[dict[str, object]]:
    """Return count and milliseconds per kind, implementation and data type, the slowest first."""
    rows: dict[tuple[str, str, str], list[float]] = {}
    for p in primitives:
        row = rows.setdefault((p.kind, p.implementation, p.data_type), [0, 0.0])
        row[0] += 1
        row[1] += p.milliseconds
    return [
        {
            "kind": kind,
            "implementation": implementation,
            "data_type": data_type,
            "count": int(count),
            "milliseconds": round(milliseconds, 4),
        }
        for (kind, implementation, data_type), (count, milliseconds) in sorted(
            rows.items(), key=lambda item: -item[1][1]
        )
    ]


def calls_in(lines: Iterable[str]) -> tuple[list[float], list[list[Primitive]]]:
    """Return the milliseconds of each timed call and the primitives of each logged call.

    Args:
        lines: the log of a ``record_main`` process.
    """
    milliseconds, calls = [], []
    pending: list[str] = []
    for line in lines:
        name, _, value = line.partition("=")
        if name == TIMED:
            milliseconds.append(float(value))
        elif name == LOGGED:
            calls.append(parse(pending))
            pending = []
        else:
            pending.append(line)
    return milliseconds, calls


def typical(calls: Sequence[Sequence[Primitive]]) -> list[Primitive]:
    """Return the last call's primitives, each with its median time over all identical calls."""
    last = [_identity(primitive) for primitive in calls[-1]]
    same = [call for call in calls if [_identity(primitive) for primitive in call] == last]
    return [
        replace(one[-1], milliseconds=median(primitive.milliseconds for primitive in one))
        for one in zip(*same, strict=True)
    ]


def _identity(primitive: Primitive) -> Primitive:
    return replace(primitive, milliseconds=0.0)
