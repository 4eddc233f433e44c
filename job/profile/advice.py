"""What to do about a call's time: plain rules, each from figures to a sentence."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from job.isa import ISA_ORDER
from job.profile.evidence import Evidence
from job.profile.kinds import (
    COPY,
    DEQUANTIZE,
    LAYOUT,
    QUANTIZE,
    REORDER,
    RESCALE,
    SIGN,
    by_kind,
    kind_of,
    total_ms,
)
from job.profile.layers import Layer
from job.profile.onednn_log import COMPUTE, Primitive, isa
from job.profile.shapes import is_depthwise, sizes, words, work
from job.text_format import plural, significant, times

# Shares of a call that are worth a word; reorders must also be a share of the primitives' time.
MUCH_DISPATCH, MUCH_MEMORY = 0.10, 0.10
MUCH_CONVERSION, MUCH_UNFOLDED, MUCH_REFERENCE = 0.05, 0.05, 0.05
MUCH_FP32, MUCH_SLOWER, MUCH_REORDER = 0.03, 0.03, 0.03
MUCH_REORDER_OF_PRIMITIVES = 0.10
# A layer is slower in INT8 from here on; less is noise.
SLOWER = 0.9
FEW_CHANNELS = 16
# Below this many multiplications for each byte read or written, and from this many bytes on, which
# no core's cache holds, a layer waits for memory.
MEMORY_BOUND, NOT_CACHED = 4, 4 * 1024**2
MEBIBYTE = 1024**2
REFERENCE = ("ref", "simple", "gemm:ref")
UNFOLDED = ("eltwise", "binary", "sum", "batch_normalization", "softmax", "prelu")
NAMED = 5
GLIBC = "glibc"
# CPU flag -> an instruction set that oneDNN has INT8 kernels for, the best first.
INT8_ISA = {"amx_int8": "avx512_core_amx", "avx512_vnni": "avx512_core_vnni"}
BYTES = {"f32": 4, "s32": 4, "bf16": 2, "f16": 2, "u8": 1, "s8": 1}

ELSEWHERE = (
    "No setting spares this; /benchmark/engines compares with engines that plan memory otherwise."
)
CURES = {
    QUANTIZE: "Values are converted where ops in FP32 stand between ops in INT8: let those run in "
    "INT8 as well (/quantize/quantize_op_types), or their neighbours in FP32 (/int8/skip_ops).",
    SIGN: "A sum is written in its residual's type, with a sign, and read without one behind its "
    f"relu. {ELSEWHERE}",
    LAYOUT: "Neighbours want different orders in memory ({formats}): look among the operators "
    "after conversion for those that oneDNN does not run, and replace them in the network.",
    RESCALE: "Neighbours have different scales: quantize the op between them as well "
    "(/quantize/quantize_op_types), so that they share one.",
    COPY: "A sum is folded into its convolution, which writes over the residual, and so one that "
    f"is read again is copied first. {ELSEWHERE}",
}
CURES[DEQUANTIZE] = CURES[QUANTIZE]


@dataclass(frozen=True)
class Advice:
    """What to do about some milliseconds of a call, in one sentence or more."""

    milliseconds: float
    text: str


def advise(evidence: Evidence) -> list[str]:
    """What each rule that applies says, what matters most first; nothing when all is well."""
    found = [advice for rule in RULES if (advice := rule(evidence))]
    return [advice.text for advice in sorted(found, key=lambda advice: -advice.milliseconds)]


def lower_isa(evidence: Evidence) -> Advice | None:
    """INT8 does not run on the best kernels that the CPU and the cap allow."""
    allowed = ISA_ORDER[-1] if evidence.isa_cap == "all" else evidence.isa_cap
    had = [name for flag, name in INT8_ISA.items() if flag in evidence.cpu_flags]
    best = next((name for name in had if _rank(name) <= _rank(allowed)), "")
    ran = isa(p for p in evidence.primitives if p.is_int8)
    if not best or not ran or _rank(ran) >= _rank(best):
        return None
    return Advice(
        evidence.call_ms,
        f"INT8 runs on {ran} though this CPU has {best}: look for ONEDNN_MAX_CPU_ISA in the "
        "environment, and whether the container or its sandbox withholds AMX.",
    )


def _rank(name: str) -> int:
    return ISA_ORDER.index(name) if name in ISA_ORDER else -1


def reorders(evidence: Evidence) -> Advice | None:
    """Much of the time is not spent on computing but on moving values about."""
    kinds = by_kind([p for p in evidence.primitives if p.kind == REORDER])
    spent = sum(map(total_ms, kinds.values()))
    if (
        evidence.reorder_share <= MUCH_REORDER_OF_PRIMITIVES
        or evidence.share(spent) <= MUCH_REORDER
    ):
        return None
    parts = [
        f"{len(group)} × {kind.removeprefix(REORDER).removeprefix(': ') or 'other'} "
        f"{significant(total_ms(group))} ms"
        for kind, group in kinds.items()
    ]
    kind, group = next(iter(kinds.items()))
    formats = sorted({f"{p.source_format} to {p.target_format}" for p in group})
    cure = CURES.get(kind, "").format(formats=", ".join(formats))
    told = (
        f"Reorders take {significant(spent)} of the {significant(evidence.primitives_ms)} ms in "
        f"INT8's primitives ({evidence.reorder_share:.0%}): {', '.join(parts)}."
    )
    return Advice(spent, f"{told} {cure}".strip())


def dispatch(evidence: Evidence) -> Advice | None:
    """Much of the call lies outside of oneDNN."""
    share = evidence.share(evidence.outside_ms)
    if share <= MUCH_DISPATCH:
        return None
    told = (
        f"Of INT8's {significant(evidence.call_ms)} ms a call, {significant(evidence.outside_ms)} "
        f"ms ({share:.0%}) lie outside oneDNN's primitives, in Paddle's dispatch of "
        f"{len(evidence.primitives)} of them and in its own ops. A larger batch than "
        f"{evidence.batch_size} spreads this over more images"
    )
    if evidence.allocator == GLIBC:
        told += "; jemalloc (LD_PRELOAD=libjemalloc.so.2) shortens it"
    told += (
        "; /benchmark/engines times other engines on the same model; the native tester (make "
        "native-run) times the same call without Python."
    )
    return Advice(evidence.outside_ms, told)


def left_in_fp32(evidence: Evidence) -> Advice | None:
    """Computing that could be INT8 is not."""
    spent = total_ms(p for _, p in evidence.left_in_fp32)
    if evidence.share(spent) <= MUCH_FP32:
        return None
    left = evidence.left_in_fp32
    listed = _listed(f"{name or kind_of(p)} {significant(p.milliseconds)} ms" for name, p in left)
    return Advice(
        spent,
        f"Left in FP32: {plural(len(left), 'op')} with {evidence.told(spent)}, {listed}. "
        "The audit says why; add their types to /quantize/quantize_op_types, or take them out of "
        "/int8/skip_ops and /quantize/not_quant_pattern.",
    )


def slower_in_int8(evidence: Evidence) -> Advice | None:
    """Layers lose by INT8."""
    slower = [x for x in evidence.layers if x.int8.is_int8 and x.fp32 and _ratio(x) < SLOWER]
    slower.sort(key=_loss, reverse=True)
    lost = sum(map(_loss, slower))
    if evidence.share(lost) <= MUCH_SLOWER:
        return None
    listed = _listed(f"{_name(x)} {times(_ratio(x))}{_why_slow(x)}" for x in slower)
    names = [x.name for x in slower if x.name][:NAMED]
    cure = f": /int8/skip_ops {json.dumps(names)}" if names else " by /int8/skip_ops"
    return Advice(
        lost,
        f"Slower in INT8 than in FP32: {plural(len(slower), 'layer')} that lose "
        f"{evidence.told(lost)}, {listed}. Leave them in FP32{cure}, and see whether the "
        "conversions around them cost less than that.",
    )


def _ratio(layer: Layer) -> float:
    return layer.ratio or 1.0


def _loss(layer: Layer) -> float:
    return layer.int8.milliseconds - layer.fp32.milliseconds if layer.fp32 else 0.0


def _why_slow(layer: Layer) -> str:
    found = sizes(layer.int8.shape)
    if is_depthwise(layer.int8.shape):
        return " (depthwise)"
    fewest = min(found.get("ic", FEW_CHANNELS), found.get("oc", FEW_CHANNELS))
    return f" ({plural(fewest, 'channel')})" if fewest < FEW_CHANNELS else ""


def reference(evidence: Evidence) -> Advice | None:
    """Ops for which oneDNN has only plain loops."""
    computing = [p for p in evidence.primitives if p.kind != REORDER]
    slow = [p for p in computing if p.implementation.startswith(REFERENCE)]
    spent = total_ms(slow)
    if evidence.share(spent) <= MUCH_REFERENCE:
        return None
    listed = _listed(sorted({f"{kind_of(p)} {words(p.shape)}" for p in slow}))
    return Advice(
        spent,
        f"oneDNN has only its reference code for {listed}, which takes {evidence.told(spent)}: "
        "leave these ops in FP32 (/int8/skip_ops), or make their channels multiples of 16.",
    )


def islands(evidence: Evidence) -> Advice | None:
    """INT8 ops stand alone, and converting for them costs."""
    converting = [p for p in evidence.primitives if kind_of(p) in (QUANTIZE, DEQUANTIZE)]
    spent = total_ms(converting)
    if not evidence.islands or evidence.share(spent) <= MUCH_CONVERSION:
        return None
    listed = _listed(f"{one['op']} ({one['type']})" for one in evidence.islands)
    names = json.dumps([one["op"] for one in evidence.islands][:NAMED])
    return Advice(
        spent,
        f"{plural(len(evidence.islands), 'INT8 op')} without INT8 neighbours: {listed}; all "
        f"conversions to and from INT8 take {evidence.told(spent)}. Quantize the neighbours too "
        f"(/quantize/quantize_op_types), or leave these in FP32: /int8/skip_ops {names}.",
    )


def unfolded(evidence: Evidence) -> Advice | None:
    """Activations, sums and norms that run as ops of their own."""
    apart = [p for p in evidence.primitives if p.kind in UNFOLDED]
    spent = total_ms(apart)
    if evidence.share(spent) <= MUCH_UNFOLDED:
        return None
    listed = ", ".join(f"{len(group)} × {kind}" for kind, group in by_kind(apart).items())
    return Advice(
        spent,
        f"Ops that no convolution took in take {evidence.told(spent)}: {listed}. An activation or "
        "a sum is folded when it stands directly behind its convolution and nothing else reads "
        "what lies between; relu is folded where others are not.",
    )


def memory_bound(evidence: Evidence) -> Advice | None:
    """Layers that wait for memory, whatever the instruction set."""
    waiting = [
        p
        for p in evidence.primitives
        if p.kind in COMPUTE
        and _moved_bytes(p) >= NOT_CACHED
        and work(p.shape)[0] < MEMORY_BOUND * _moved_bytes(p)
    ]
    spent = total_ms(waiting)
    if evidence.share(spent) <= MUCH_MEMORY:
        return None
    moved = sum(map(_moved_bytes, waiting))
    listed = _listed(f"{kind_of(p)} {words(p.shape)}" for p in waiting)
    return Advice(
        spent,
        f"Memory's speed bounds {listed}: {evidence.told(spent)} to read and write "
        f"{moved / MEBIBYTE:.0f} MiB at {moved / spent / 1e6:.1f} GB/s. No instruction set makes "
        f"this quicker; a larger batch than {evidence.batch_size} reads the weights once for all "
        "of its images.",
    )


def _moved_bytes(primitive: Primitive) -> int:
    """Bytes of a layer's weights and, taken as of its input's type, its values."""
    _, weights, values = work(primitive.shape)
    size = BYTES.get(primitive.data_type, 4)
    return weights * BYTES.get(primitive.weights_type, size) + values * size


def _name(layer: Layer) -> str:
    return layer.name or words(layer.int8.shape)


def _listed(items: Iterable[str]) -> str:
    found = list(items)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{', '.join(found[:NAMED])}{more}"


RULES: tuple[Callable[[Evidence], Advice | None], ...] = (
    lower_isa,
    left_in_fp32,
    slower_in_int8,
    reorders,
    islands,
    unfolded,
    reference,
    memory_bound,
    dispatch,
)
