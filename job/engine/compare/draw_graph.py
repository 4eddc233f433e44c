"""Draws the ops of a saved program as SVG; the colour shows which ops run in INT8."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from job.engine.inference.paddle_format import OpDesc, ProgramDesc, read_program
from job.engine.int8.audit import attribute, inputs_of, is_int8

ROW, BOX, WIDTH, LANE = 26, 20, 430, 9
INT8_COLOUR, PAIR_COLOUR, FP32_COLOUR = "#ffd9a8", "#e4e4e4", "#d6e6fa"
CONVERTING = ("quantize", "dequantize", "requantize", "quantize_linear", "dequantize_linear")
LONGEST_NAME = 44


def draw(prefix: Path) -> str:
    """Return an SVG picture of the program in ``prefix``.pdmodel.

    Ops are drawn from top to bottom in the order of execution, with their index among all ops.
    ``/int8/skip_ops`` accepts these indices of the fake-quantized model. A line on the left leads
    from an op to each later op that reads its output, except to the next op. Ops that only prepare
    weights are omitted.
    """
    places, ops = on_images(read_program(Path(f"{prefix}.pdmodel")))
    edges = [(a, b) for a, b in reads(ops) if b - a > 1]
    lanes = assign_lanes(edges)
    left = LANE * (max(lanes, default=0) + 2)
    body = [arc(a, b, lane, left) for (a, b), lane in zip(edges, lanes, strict=True)]
    body += [box(op, row, places[row], left) for row, op in enumerate(ops)]
    height, width = ROW * len(ops) + 2 * ROW, left + WIDTH + LANE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{legend(left)}{"".join(body)}</svg>\n'
    )


def on_images(program: ProgramDesc) -> tuple[list[int], list[OpDesc]]:
    """Return the indices of the ops that depend on the images, and these ops."""
    block = program.blocks[0]
    constant = {variable.name for variable in block.vars if variable.persistable}
    places, ops = [], []
    for place, op in enumerate(block.ops):
        if op.type not in ("feed", "fetch") and not constant.issuperset(inputs_of(op)):
            places.append(place)
            ops.append(op)
        elif op.type != "feed":
            constant |= {name for slot in op.outputs for name in slot.arguments}
    return places, ops


def reads(ops: Sequence[OpDesc]) -> list[tuple[int, int]]:
    """Return the pairs of indices (writer, reader) of ops that share a variable."""
    writers: dict[str, int] = {}
    pairs = []
    for index, op in enumerate(ops):
        pairs += [(writers[name], index) for name in inputs_of(op) if name in writers]
        writers |= {name: index for slot in op.outputs for name in slot.arguments}
    return sorted(set(pairs))


def assign_lanes(edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return a column for each line so that lines do not overlap; short lines are further right."""
    ends: list[list[tuple[int, int]]] = []
    lanes = [0] * len(edges)
    for place in sorted(range(len(edges)), key=lambda i: edges[i][1] - edges[i][0]):
        start, end = edges[place]
        lane = 0
        while lane < len(ends) and any(a < end and start < b for a, b in ends[lane]):
            lane += 1
        if lane == len(ends):
            ends.append([])
        ends[lane].append((start, end))
        lanes[place] = lane
    return lanes


def middle(row: int) -> int:
    """Return the y coordinate of a row's middle, in pixels."""
    return ROW * row + ROW + ROW // 2


def arc(start: int, end: int, lane: int, left: int) -> str:
    """Return the line from one op to another op as SVG."""
    x, first, last = left - LANE * (lane + 1), middle(start), middle(end)
    return f'<path d="M{left},{first}H{x}V{last}H{left}" fill="none" stroke="#888"/>'


def box(op: OpDesc, row: int, place: int, left: int) -> str:
    """Return an op as SVG: index, type, fused ops and output."""
    name = op.outputs[0].arguments[0] if op.outputs and op.outputs[0].arguments else ""
    if len(name) > LONGEST_NAME:
        name = f"…{name[-LONGEST_NAME:]}"
    y = middle(row)
    return (
        f'<g><title>{escape(describe(op))}</title><rect x="{left}" y="{y - BOX // 2}" '
        f'width="{WIDTH}" height="{BOX}" rx="3" fill="{colour(op)}" stroke="#888"/>'
        f'<text x="{left + 6}" y="{y + 4}">#{place} {escape(op.type + folded(op))}</text>'
        f'<text x="{left + WIDTH - 6}" y="{y + 4}" text-anchor="end" fill="#555">'
        f"{escape(name)}</text></g>"
    )


def colour(op: OpDesc) -> str:
    """Return the colour of an op: INT8, quantize or dequantize, or FP32."""
    if op.type in CONVERTING:
        return PAIR_COLOUR
    return INT8_COLOUR if is_int8(op) else FP32_COLOUR


def folded(op: OpDesc) -> str:
    """Return the ops that were fused into an op, as text."""
    residual = any(slot.parameter == "ResidualData" and slot.arguments for slot in op.inputs)
    activation = attribute(op, "fuse_activation") or attribute(op, "activation_type")
    parts = ["add"] * residual + [text(activation)] * bool(activation)
    return "".join(f" + {part}" for part in parts)


def text(value: object) -> str:
    """Return an attribute's value as text; some protobuf versions return bytes for strings."""
    return value.decode() if isinstance(value, bytes) else str(value)


def describe(op: OpDesc) -> str:
    """Return the tooltip of an op: all inputs, outputs and scales."""
    lines = [op.type]
    lines += [f"{slot.parameter}: {', '.join(slot.arguments)}" for slot in op.inputs]
    lines += [f"→ {slot.parameter}: {', '.join(slot.arguments)}" for slot in op.outputs]
    for scale in ("Scale_in", "Scale_out", "Scale_in_eltwise"):
        value = attribute(op, scale)
        lines += [f"{scale} {value}"] if value else []
    return "\n".join(lines)


def legend(left: int) -> str:
    """Return the legend of the colours as SVG."""
    parts = (("INT8", INT8_COLOUR), ("quantize/dequantize", PAIR_COLOUR), ("FP32", FP32_COLOUR))
    return "".join(
        f'<rect x="{left + 140 * i}" y="4" width="12" height="12" fill="{fill}" stroke="#888"/>'
        f'<text x="{left + 140 * i + 17}" y="14">{name}</text>'
        for i, (name, fill) in enumerate(parts)
    )
