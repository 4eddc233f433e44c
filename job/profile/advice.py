"""Rules that derive advice from the breakdown of a call's time: one rule per cause of lost time."""

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

# Share of a call from which a rule applies. Smaller gains are within the noise of a measurement.
MUCH = 0.10
# Reorders must also exceed this share of the primitives.
MUCH_REORDER_OF_PRIMITIVES = 0.10
# VNNI computes at most four times as many products per instruction as FP32.
INT8_LIMIT = 4
# Kinds of primitive whose ops /quantize/quantize_op_types can name.
QUANTIZABLE = (*COMPUTE, "pooling", "binary")
# A layer counts as slower in INT8 below this speedup; the range from here to 1 is noise.
SLOWER = 0.9
FEW_CHANNELS = 16
# A layer is memory-bound if it does fewer multiplications than this per byte that it reads or
# writes, and if its bytes exceed the cache of a core.
MEMORY_BOUND, NOT_CACHED = 4, 4 * 1024**2
MEBIBYTE = 1024**2
REFERENCE = ("ref", "simple", "gemm:ref")
UNFOLDED = ("eltwise", "binary", "sum", "batch_normalization", "softmax", "prelu")
NAMED = 5
GLIBC = "glibc"
# CPU flag -> instruction set for which oneDNN has INT8 kernels, the fastest first.
INT8_ISA = {"amx_int8": "avx512_core_amx", "avx512_vnni": "avx512_core_vnni"}
BYTES = {"f32": 4, "s32": 4, "bf16": 2, "f16": 2, "u8": 1, "s8": 1}

ELSEWHERE = (
    "No manifest key avoids this. Other engines plan memory differently: list them in "
    "/benchmark/engines to compare."
)
CURES = {
    QUANTIZE: "FP32 ops between INT8 ops require conversions. Run these FP32 ops in INT8 as well "
    "(/quantize/quantize_op_types), or run their neighbours in FP32 (/int8/skip_ops).",
    SIGN: "A residual sum is written as signed values, because its residual is signed. The ops "
    f"after its relu read unsigned values. {ELSEWHERE}",
    LAYOUT: "Neighbouring ops use different memory layouts ({formats}). In the list of ops "
    "after conversion, find the ops that oneDNN does not run. Replace them in the network.",
    RESCALE: "Neighbouring ops have different scales. Quantize the op between them as well "
    "(/quantize/quantize_op_types), so that they share one scale.",
    COPY: "A sum is fused into its convolution, which overwrites the residual. If another op reads "
    f"the residual later, the residual is copied first. {ELSEWHERE}",
}
CURES[DEQUANTIZE] = CURES[QUANTIZE]


@dataclass(frozen=True)
class Advice:
    """One piece of advice.

    Attributes:
        gain_ms: the most of a call's time that following the advice can save.
        text: the cause of this time, and what to do.
    """

    gain_ms: float
    text: str


def advise(evidence: Evidence) -> list[str]:
    """Return the texts of all rules that apply, the largest possible gain first."""
    applying = [advice for rule in RULES if (advice := rule(evidence))]
    return [advice.text for advice in sorted(applying, key=lambda advice: -advice.gain_ms)]


def lower_isa(evidence: Evidence) -> Advice | None:
    """INT8 runs on a lower instruction set than the CPU and the cap allow."""
    allowed = ISA_ORDER[-1] if evidence.isa_cap == "all" else evidence.isa_cap
    supported = [name for flag, name in INT8_ISA.items() if flag in evidence.cpu_flags]
    best = next((name for name in supported if _rank(name) <= _rank(allowed)), "")
    used = isa(p for p in evidence.primitives if p.is_int8)
    if not best or not used or _rank(used) >= _rank(best):
        return None
    return Advice(
        evidence.call_ms,
        f"INT8 runs on {used}, but this CPU supports {best}. Check whether ONEDNN_MAX_CPU_ISA is "
        "set, and whether the container or its sandbox hides instruction sets.",
    )


def _rank(name: str) -> int:
    return ISA_ORDER.index(name) if name in ISA_ORDER else -1


def reorders(evidence: Evidence) -> Advice | None:
    """Conversions and copies of values take much of the time."""
    kinds = by_kind([p for p in evidence.primitives if p.kind == REORDER])
    spent = sum(map(total_ms, kinds.values()))
    if evidence.reorder_share <= MUCH_REORDER_OF_PRIMITIVES or evidence.share(spent) <= MUCH:
        return None
    parts = [
        f"{len(group)} × {kind.removeprefix(REORDER).removeprefix(': ') or 'other'} "
        f"{significant(total_ms(group))} ms"
        for kind, group in kinds.items()
    ]
    kind, group = next(iter(kinds.items()))
    formats = sorted({f"{p.source_format} to {p.target_format}" for p in group})
    cure = CURES.get(kind, "").format(formats=", ".join(formats))
    text = (
        f"Reorders take {significant(spent)} ms of the {significant(evidence.primitives_ms)} ms in "
        f"INT8's primitives ({evidence.reorder_share:.0%}): {', '.join(parts)}."
    )
    return Advice(spent, f"{text} {cure}".strip())


def dispatch(evidence: Evidence) -> Advice | None:
    """Much of a call is spent outside oneDNN."""
    share = evidence.share(evidence.outside_ms)
    if share <= MUCH:
        return None
    text = (
        f"An INT8 call takes {significant(evidence.call_ms)} ms. Of this, "
        f"{significant(evidence.outside_ms)} ms ({share:.0%}) are spent outside oneDNN's "
        f"primitives: in Paddle's dispatch of {plural(len(evidence.primitives), 'primitive')} and "
        f"in Paddle's own ops. A batch size above {evidence.batch_size} spreads this time over "
        "more images."
    )
    if evidence.allocator == GLIBC:
        text += " jemalloc (LD_PRELOAD=libjemalloc.so.2) shortens this time."
    text += " /benchmark/engines times other engines on the same model."
    return Advice(evidence.outside_ms, text)


def left_in_fp32(evidence: Evidence) -> Advice | None:
    """Ops that could run in INT8 run in FP32."""
    found = [(name, p) for name, p in evidence.left_in_fp32 if p.kind in QUANTIZABLE]
    spent = total_ms(p for _, p in found)
    gain = spent * (1 - 1 / INT8_LIMIT)
    if evidence.share(gain) <= MUCH:
        return None
    listed = _listed(f"{name or kind_of(p)} {significant(p.milliseconds)} ms" for name, p in found)
    return Advice(
        gain,
        f"Primitives in FP32 that INT8 supports take {evidence.with_share(spent)}: {listed}. The "
        "table of ops left in FP32 gives the reason for each. Add the types of these "
        "ops to /quantize/quantize_op_types, or remove the ops from /int8/skip_ops and "
        "/quantize/not_quant_pattern.",
    )


def slower_in_int8(evidence: Evidence) -> Advice | None:
    """Layers are slower in INT8 than in FP32."""
    slower = [x for x in evidence.layers if x.int8.is_int8 and x.fp32 and _ratio(x) < SLOWER]
    slower.sort(key=_loss, reverse=True)
    lost = sum(map(_loss, slower))
    if evidence.share(lost) <= MUCH:
        return None
    listed = _listed(f"{_name(x)} {times(_ratio(x))}{_why_slow(x)}" for x in slower)
    names = [x.name for x in slower if x.name][:NAMED]
    skip_ops = f"/int8/skip_ops {json.dumps(names)}" if names else "/int8/skip_ops"
    return Advice(
        lost,
        f"Slower in INT8 than in FP32: {plural(len(slower), 'layer')} with a loss of "
        f"{evidence.with_share(lost)}: {listed}. Run these layers in FP32 ({skip_ops}), then check "
        "that the new conversions cost less than this loss.",
    )


def _ratio(layer: Layer) -> float:
    return layer.ratio or 1.0


def _loss(layer: Layer) -> float:
    return layer.int8.milliseconds - layer.fp32.milliseconds if layer.fp32 else 0.0


def _why_slow(layer: Layer) -> str:
    if is_depthwise(layer.int8.shape):
        return " (depthwise)"
    channels = sizes(layer.int8.shape)
    fewest = min(channels.get("ic", FEW_CHANNELS), channels.get("oc", FEW_CHANNELS))
    return f" ({plural(fewest, 'channel')})" if fewest < FEW_CHANNELS else ""


def reference(evidence: Evidence) -> Advice | None:
    """oneDNN has no optimized kernel for some ops."""
    computing = [p for p in evidence.primitives if p.kind != REORDER]
    slow = [p for p in computing if p.implementation.startswith(REFERENCE)]
    spent = total_ms(slow)
    if evidence.share(spent) <= MUCH:
        return None
    listed = _listed(sorted({f"{kind_of(p)} {words(p.shape)}" for p in slow}))
    return Advice(
        spent,
        f"oneDNN has only reference code, no optimized kernel, for {listed}. This takes "
        f"{evidence.with_share(spent)}. Run these ops in FP32 (/int8/skip_ops), or change their "
        "channels to multiples of 16.",
    )


def islands(evidence: Evidence) -> Advice | None:
    """INT8 ops without INT8 neighbours need conversions."""
    converting = [p for p in evidence.primitives if kind_of(p) in (QUANTIZE, DEQUANTIZE)]
    spent = total_ms(converting)
    if not evidence.islands or evidence.share(spent) <= MUCH:
        return None
    listed = _listed(f"{one['op']} ({one['type']})" for one in evidence.islands)
    names = json.dumps([one["op"] for one in evidence.islands][:NAMED])
    return Advice(
        spent,
        f"{plural(len(evidence.islands), 'INT8 op')} without INT8 neighbours: {listed}. All "
        f"conversions to and from INT8 take {evidence.with_share(spent)}. Quantize the neighbours "
        f"as well (/quantize/quantize_op_types), or run these ops in FP32: /int8/skip_ops {names}.",
    )


def unfolded(evidence: Evidence) -> Advice | None:
    """Activations, sums and norms are not fused into convolutions."""
    apart = [p for p in evidence.primitives if p.kind in UNFOLDED]
    spent = total_ms(apart)
    if evidence.share(spent) <= MUCH:
        return None
    listed = ", ".join(f"{len(group)} × {kind}" for kind, group in by_kind(apart).items())
    return Advice(
        spent,
        f"Ops that are not fused into a convolution take {evidence.with_share(spent)}: {listed}. "
        "An activation or a sum is fused if it directly follows its convolution and no other op "
        "reads the convolution's output. relu is fused in more cases than other activations.",
    )


def memory_bound(evidence: Evidence) -> Advice | None:
    """Memory bandwidth limits some layers."""
    memory_bound_layers = [
        p
        for p in evidence.primitives
        if p.kind in COMPUTE
        and _moved_bytes(p) >= NOT_CACHED
        and work(p.shape)[0] < MEMORY_BOUND * _moved_bytes(p)
    ]
    spent = total_ms(memory_bound_layers)
    if evidence.share(spent) <= MUCH:
        return None
    moved = sum(map(_moved_bytes, memory_bound_layers))
    listed = _listed(f"{kind_of(p)} {words(p.shape)}" for p in memory_bound_layers)
    return Advice(
        spent,
        f"Memory bandwidth limits {listed}: {evidence.with_share(spent)} to read and write "
        f"{moved / MEBIBYTE:.0f} MiB at {moved / spent / 1e6:.1f} GB/s. A higher instruction set "
        f"does not help. A batch size above {evidence.batch_size} reads the weights once for more "
        "images.",
    )


def _moved_bytes(primitive: Primitive) -> int:
    """Return the bytes of a layer's weights, inputs and outputs; outputs count as input type."""
    _, weights, values = work(primitive.shape)
    size = BYTES.get(primitive.data_type, 4)
    return weights * BYTES.get(primitive.weights_type, size) + values * size


def _name(layer: Layer) -> str:
    return layer.name or words(layer.int8.shape)


def _listed(items: Iterable[str]) -> str:
    texts = list(items)
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return f"{', '.join(texts[:NAMED])}{more}"


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
