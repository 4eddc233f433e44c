"""Where the time of a call goes: what stands about it in a report and on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from job import text_format
from job.profile import shapes
from job.report.render.blocks import Block, Grid, Plot, Section, Text, figures, words
from job.report.tables import cap_name

MAX_LEFT, MAX_ISLANDS = 10, 5
OUTSIDE, WHOLE = "outside primitives", "the whole call"
NONE = text_format.DASH


def breakdown_sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    """A section for each ISA cap with its advice and its tables; the picture is of all."""
    sections = []
    for number, part in enumerate(report["breakdown"]):
        blocks: list[Block] = [] if number else [Plot("breakdown")]
        blocks.append(Text(summary_text(part)))
        blocks += [Text(f"• {advice}") for advice in advice_of(part)]
        blocks += [kinds_grid(part), slowest_grid(part)]
        if part["left_in_fp32"]:
            blocks.append(left_grid(part))
        sections.append(Section(title_of(report, part), tuple(blocks)))
    return tuple(sections)


def title_of(report: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """A part's title; its ISA cap is named where there are several."""
    capped = f": {cap_name(part['isa_cap'])}" if len(report["breakdown"]) > 1 else ""
    return f"Where the time goes{capped}"


def advice_of(part: Mapping[str, Any]) -> Sequence[str]:
    """What to do, or that there is nothing to do."""
    return part["advice"] or (_nothing_to_do(part),)


def _nothing_to_do(part: Mapping[str, Any]) -> str:
    fp32 = {row["kind"]: row["milliseconds"] for row in part["fp32"]["kinds"]}
    if not part["int8"]["kinds"]:
        return "oneDNN ran nothing of this model."
    slowest = part["int8"]["kinds"][0]
    kind, spent = slowest["kind"], slowest["milliseconds"]
    whole = whole_ms(part, "int8")
    ratio = text_format.times(fp32.get(kind, 0.0) / spent) if spent else NONE
    return (
        f"Nothing stands out. Most of INT8's time, {text_format.significant(spent)} of "
        f"{text_format.significant(whole)} ms, goes into {kind}, which runs {ratio} as fast as in "
        "FP32: only quicker kernels, of a CPU with more instructions for INT8, would change that."
    )


def whole_ms(part: Mapping[str, Any], model: str) -> float:
    """Milliseconds of a call of ``fp32`` or ``int8``."""
    return float(part[model]["milliseconds"] + part["dispatch_ms"][model])


def summary_text(part: Mapping[str, Any]) -> str:
    """The call in a few sentences."""
    fp32, int8 = whole_ms(part, "fp32"), whole_ms(part, "int8")
    left = part["left_in_fp32"]
    spent = sum(item["milliseconds"] for item in left)
    names = [f"{one['op']} ({one['type']})" for one in part["islands"]]
    more = len(names) - MAX_ISLANDS
    shown = ", ".join(names[:MAX_ISLANDS]) + (f" and {more} more" if more > 0 else "")
    alone = f"INT8 ops without INT8 neighbours: {shown}." if names else "No INT8 op stands alone."
    return (
        f"A call with {text_format.plural(part['batch_size'], 'image')} on 1 thread takes "
        f"{text_format.significant(fp32)} ms in FP32 and "
        f"{text_format.significant(int8)} ms in INT8. Of "
        "INT8's time in primitives, "
        f"{part['reorder_share']:.0%} goes into reorders. Left in FP32: "
        f"{text_format.plural(len(left), 'op')}, {text_format.significant(spent)} ms. {alone}"
    )


def kinds_grid(part: Mapping[str, Any]) -> Grid:
    """Count and milliseconds of each kind of primitive, FP32 beside INT8."""
    fp32, int8 = ({row["kind"]: row for row in part[model]["kinds"]} for model in ("fp32", "int8"))
    whole = whole_ms(part, "int8")
    rows = [
        _kind_row(kind, _count(fp32, kind), _ms(fp32, kind), _count(int8, kind), _ms(int8, kind),
                  whole)
        for kind in sorted(fp32 | int8, key=lambda kind: (-_ms(int8, kind), -_ms(fp32, kind)))
    ]  # fmt: skip
    outside = part["dispatch_ms"]
    rows.append(_kind_row(OUTSIDE, 0, outside["fp32"], 0, outside["int8"], whole))
    rows.append(_kind_row(WHOLE, 0, whole_ms(part, "fp32"), 0, whole, whole))
    columns = (
        *words("Primitives"),
        *figures("FP32\ncount", "FP32\nms", "INT8\ncount", "INT8\nms", "INT8\n%", "Ratio"),
    )
    note = (
        "Medians. Time in primitives is from oneDNN's log, both models in oneDNN's kernels; that "
        "of the whole call is without the log, which costs time. Outside primitives: Paddle's "
        "dispatch and its own ops. %: share of INT8's call."
    )
    return Grid("Time by kind of primitive", columns, tuple(rows), note)


def _kind_row(
    kind: str, fp32_count: int, fp32_ms: float, int8_count: int, int8_ms: float, whole: float
) -> tuple[str, ...]:
    return (
        kind,
        text_format.count(fp32_count) if fp32_count else "",
        text_format.significant(fp32_ms) if fp32_count or fp32_ms else NONE,
        text_format.count(int8_count) if int8_count else "",
        text_format.significant(int8_ms) if int8_count or int8_ms else NONE,
        f"{100 * int8_ms / whole:.1f}" if whole else NONE,
        text_format.times(fp32_ms / int8_ms) if fp32_ms and int8_ms else NONE,
    )


def _count(rows: Mapping[str, Mapping[str, Any]], kind: str) -> int:
    return int(rows[kind]["count"]) if kind in rows else 0


def _ms(rows: Mapping[str, Mapping[str, Any]], kind: str) -> float:
    return float(rows[kind]["milliseconds"]) if kind in rows else 0.0


def slowest_grid(part: Mapping[str, Any]) -> Grid:
    """The slowest layers of the INT8 model beside FP32."""
    rows = tuple(
        (
            layer["op"] or NONE,
            shapes.words(layer["shape"]),
            NONE if layer["fp32_ms"] is None else text_format.significant(layer["fp32_ms"]),
            text_format.significant(layer["int8_ms"]),
            NONE if layer["ratio"] is None else text_format.times(layer["ratio"]),
            " ".join((layer["implementation"], *(f"+{name}" for name in layer["folded"]))),
        )
        for layer in part["slowest"]
    )
    columns = (
        *words("Layer", "Shape"),
        *figures("FP32 ms", "INT8 ms", "Ratio"),
        *words("INT8 implementation"),
    )
    note = (
        "Shape: kernel/stride, channels in→out, input. A + names what was folded in. Layers are "
        "named by their output, as /int8/skip_ops wants it."
    )
    return Grid("Slowest layers in INT8", columns, rows, note)


def left_grid(part: Mapping[str, Any]) -> Grid:
    """What the INT8 model computes in FP32."""
    left = part["left_in_fp32"]
    rows = tuple(
        (
            item["op"] or NONE,
            item["kind"],
            shapes.words(item["shape"]),
            text_format.significant(item["milliseconds"]),
        )
        for item in left[:MAX_LEFT]
    )
    more = len(left) - MAX_LEFT
    note = f"{text_format.count(more)} more in report.json." if more > 0 else ""
    columns = (*words("Op", "Kind", "Shape"), *figures("ms"))
    return Grid("Computed in FP32 in the INT8 model", columns, rows, note)
