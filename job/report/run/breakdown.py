"""Time of one call by kind of primitive: sections of a report, and texts for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from job import text_format
from job.profile import shapes
from job.report.render.blocks import Block, Grid, Plot, Section, Text, figures, words
from job.report.tables import cap_name

MAX_LEFT, MAX_ISLANDS = 10, 5
OUTSIDE, WHOLE = "outside primitives", "whole call"
NONE = text_format.DASH


def breakdown_sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    """Return one section for each ISA cap. The first section contains the plot of all caps."""
    sections = []
    for number, part in enumerate(report["breakdown"]):
        blocks: list[Block] = [] if number else [Plot("breakdown")]
        blocks.append(Text(summary_text(part)))
        blocks += [Text(f"• {advice}") for advice in advice_of(part)]
        blocks += [kinds_grid(part), slowest_grid(part)]
        if part["left_in_fp32"]:
            blocks.append(fp32_primitives_grid(part))
        sections.append(Section(title_of(report, part), tuple(blocks)))
    return tuple(sections)


def title_of(report: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Return a part's title; it names the ISA cap if there are several."""
    capped = f": {cap_name(part['isa_cap'])}" if len(report["breakdown"]) > 1 else ""
    return f"Time of one call{capped}"


def advice_of(part: Mapping[str, Any]) -> Sequence[str]:
    """Return the advice of a part, or one sentence on the largest share if there is no advice."""
    return part["advice"] or (_largest_share(part),)


def _largest_share(part: Mapping[str, Any]) -> str:
    fp32 = {row["kind"]: row["milliseconds"] for row in part["fp32"]["kinds"]}
    if not part["int8"]["kinds"]:
        return "oneDNN executed no primitive of this model."
    slowest = part["int8"]["kinds"][0]
    kind, spent = slowest["kind"], slowest["milliseconds"]
    whole = whole_ms(part, "int8")
    ratio = text_format.times(fp32.get(kind, 0.0) / spent) if spent else NONE
    return (
        f"No single cause of lost time was found. The largest part of INT8's time, "
        f"{text_format.significant(spent)} of {text_format.significant(whole)} ms, is {kind}, "
        f"{ratio} as fast as in FP32. Faster kernels would reduce it, for example on a CPU with "
        "more INT8 instructions."
    )


def whole_ms(part: Mapping[str, Any], model: str) -> float:
    """Return the milliseconds of one call of ``fp32`` or ``int8``."""
    return float(part[model]["milliseconds"] + part["dispatch_ms"][model])


def summary_text(part: Mapping[str, Any]) -> str:
    """Return the time of one call, of reorders and of FP32 ops in words."""
    fp32, int8 = whole_ms(part, "fp32"), whole_ms(part, "int8")
    spent = sum(item["milliseconds"] for item in part["left_in_fp32"])
    names = [f"{one['op']} ({one['type']})" for one in part["islands"]]
    more = len(names) - MAX_ISLANDS
    listed = ", ".join(names[:MAX_ISLANDS]) + (f" and {more} more" if more > 0 else "")
    alone = (
        f"INT8 ops without INT8 neighbours: {listed}."
        if names
        else "Every INT8 op has an INT8 neighbour."
    )
    return (
        f"One call with {text_format.plural(part['batch_size'], 'image')} on 1 thread takes "
        f"{text_format.significant(fp32)} ms in FP32 and {text_format.significant(int8)} ms in "
        "INT8. Reorders (conversions of layout or data type) take "
        f"{part['reorder_share']:.0%} of the time in INT8's oneDNN primitives. Other primitives "
        f"in FP32 take {text_format.significant(spent)} ms. {alone}"
    )


def kinds_grid(part: Mapping[str, Any]) -> Grid:
    """Return count and milliseconds of each kind of primitive in FP32 and in INT8."""
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
        *words("Kind of primitive"),
        *figures("Speedup", "FP32\nms", "INT8\nms", "INT8\n%", "FP32\ncount", "INT8\ncount"),
    )
    note = (
        "All times are medians. Both models run in oneDNN. The times of primitives are from "
        "oneDNN's log. The whole call is timed without the log, because logging takes time. "
        "Outside primitives: Paddle's dispatch and Paddle's own ops. INT8 %: share of the "
        "whole INT8 call."
    )
    return Grid("Time by kind of primitive", columns, tuple(rows), note)


def _kind_row(
    kind: str, fp32_count: int, fp32_ms: float, int8_count: int, int8_ms: float, whole: float
) -> tuple[str, ...]:
    return (
        kind,
        text_format.times(fp32_ms / int8_ms) if fp32_ms and int8_ms else NONE,
        text_format.significant(fp32_ms) if fp32_count or fp32_ms else NONE,
        text_format.significant(int8_ms) if int8_count or int8_ms else NONE,
        f"{100 * int8_ms / whole:.1f}" if whole else NONE,
        text_format.count(fp32_count) if fp32_count else "",
        text_format.count(int8_count) if int8_count else "",
    )


def _count(rows: Mapping[str, Mapping[str, Any]], kind: str) -> int:
    return int(rows[kind]["count"]) if kind in rows else 0


def _ms(rows: Mapping[str, Mapping[str, Any]], kind: str) -> float:
    return float(rows[kind]["milliseconds"]) if kind in rows else 0.0


def slowest_grid(part: Mapping[str, Any]) -> Grid:
    """Return the slowest layers of the INT8 model with their times in FP32."""
    rows = tuple(
        (
            layer["op"] or NONE,
            NONE if layer["ratio"] is None else text_format.times(layer["ratio"]),
            NONE if layer["fp32_ms"] is None else text_format.significant(layer["fp32_ms"]),
            text_format.significant(layer["int8_ms"]),
            shapes.words(layer["shape"]),
            " ".join((layer["implementation"], *(f"+{name}" for name in layer["folded"]))),
        )
        for layer in part["slowest"]
    )
    columns = (
        *words("Layer"),
        *figures("Speedup", "FP32 ms", "INT8 ms"),
        *words("Shape", "INT8 implementation"),
    )
    note = (
        "Layer: name of its output; /int8/skip_ops keeps layers in FP32 by this name. Shape: "
        "kernel/stride, channels in→out, input size. +: op fused into the layer."
    )
    return Grid("Slowest layers in INT8", columns, rows, note)


def fp32_primitives_grid(part: Mapping[str, Any]) -> Grid:
    """Return the slowest oneDNN primitives of the INT8 model that compute in FP32."""
    found = part["left_in_fp32"]
    rows = tuple(
        (
            item["op"] or NONE,
            text_format.significant(item["milliseconds"]),
            item["kind"],
            shapes.words(item["shape"]),
        )
        for item in found[:MAX_LEFT]
    )
    more = len(found) - MAX_LEFT
    note = (
        "Primitives of oneDNN, except reorders. The section Ops in INT8 lists the ops that are "
        "left in FP32 although INT8 supports their type."
    )
    if more > 0:
        note += f" {text_format.count(more)} more in report.json."
    columns = (*words("Op"), *figures("ms"), *words("Kind", "Shape"))
    return Grid("Slowest primitives in FP32", columns, rows, note)
