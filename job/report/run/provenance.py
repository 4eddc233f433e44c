"""Tables of where the figures come from: audit, data, machine, versions, stages, digests."""

from collections.abc import Mapping, Sequence
from typing import Any

from job import text_format
from job.report.render.blocks import Block, Grid, Text, figures, words
from job.report.run.differences import difference_blocks

MAX_ROWS = 25
Facts = Sequence[tuple[str, str]]


def _shortened(
    rows: Sequence[tuple[str, ...]], what: str, limit: int = MAX_ROWS
) -> tuple[tuple[tuple[str, ...], ...], str]:
    """The first rows, and a note that tells where the others are."""
    if len(rows) <= limit:
        return tuple(rows), ""
    left = text_format.count(len(rows) - limit)
    return tuple(rows[:limit]), f"{left} more {what} in report.json."


def audit_blocks(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """What ran in INT8, what stayed in FP32 and why, and the primitives that prove it."""
    audit = report["audit"]
    folded = audit["folded"]
    told = (
        f"{text_format.plural(audit['int8_ops'], 'operator')} in INT8, "
        f"{text_format.count(audit['fp32_ops'])} left in FP32. Training quantized: "
        f"{', '.join(audit['quantized_op_types']) or 'nothing'}. Folded away: "
        f"{text_format.plural(folded['batch_norm'], 'batch norm')}, "
        f"{text_format.plural(folded['activation'], 'activation')}, "
        f"{text_format.plural(folded['residual_add'], 'residual addition')}."
    )
    blocks: list[Block] = [Text(told)]
    if audit["left_in_fp32"]:
        rows, note = _shortened(
            [(left["op"], left["type"], left["reason"]) for left in audit["left_in_fp32"]],
            "operators",
        )
        blocks.append(Grid("Left in FP32", words("Operator", "Type", "Why"), rows, note))
    else:
        blocks.append(Text("Nothing that could be INT8 stayed in FP32."))
    blocks += difference_blocks(report)
    return (*blocks, _primitives_grid(audit), _operators_grid(audit))


def _primitives_grid(audit: Mapping[str, Any]) -> Grid:
    primitives = sorted(audit["primitives"], key=lambda p: -p["milliseconds"])
    total = sum(p["milliseconds"] for p in primitives)
    rows, note = _shortened(
        [
            (
                p["kind"],
                p["implementation"],
                p["data_type"],
                text_format.count(p["count"]),
                text_format.significant(p["milliseconds"]),
                f"{100 * p['milliseconds'] / total:.1f}" if total else "0.0",
            )
            for p in primitives
        ],
        "kinds of primitive",
    )
    columns = (
        *words("Primitive", "Implementation", "Data type"),
        *figures("Count", "Time ms", "Share %"),
    )
    told = (
        f"From ONEDNN_VERBOSE, by time; {text_format.significant(total)} ms in all. {note}".strip()
    )
    return Grid("Primitives that ran in the INT8 model", columns, rows, told)


def _operators_grid(audit: Mapping[str, Any]) -> Grid:
    before, after = audit["ops_before"], audit["ops_after"]
    types = sorted(before | after, key=lambda t: (-before.get(t, 0), -after.get(t, 0), t))
    rows = [
        (t, text_format.count(before.get(t, 0)), text_format.count(after.get(t, 0))) for t in types
    ]
    rows.append(
        ("all", text_format.count(sum(before.values())), text_format.count(sum(after.values())))
    )
    columns = (*words("Operator type"), *figures("FP32 model", "INT8 model"))
    return Grid("Operators before and after", columns, tuple(rows))


def data_blocks(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """The splits, how they were cut, and the images left out."""
    data = report["data"]
    splits = data["splits"]
    rows = tuple(
        (split, text_format.count(splits[split]["images"]), splits[split]["how"])
        for split in ("train", "calibration", "selection", "test")
        if split in splits
    )
    columns = (*words("Split"), *figures("Images"), *words("Where from"))
    grid = Grid("Splits", columns, rows)
    told = Text(f"Format {data['format']}, {text_format.count(data['classes'])} classes.")
    if not data["bad_images"]:
        return told, grid, Text("No bad images.")
    bad, note = _shortened([(b["path"], b["reason"]) for b in data["bad_images"]], "bad images")
    counted = text_format.plural(len(data["bad_images"]), "bad image")
    return told, grid, Grid(f"Left out: {counted}", words("Image", "Reason"), bad, note)


def isa_and_seeds(report: Mapping[str, Any]) -> Facts:
    """Return the instruction sets and the random seeds of a run."""
    return (
        ("ISA of FP32", report["isa"]["fp32"]),
        ("ISA of INT8", report["isa"]["int8"]),
        ("Seed of the baseline", str(report["seeds"]["baseline"])),
        ("Seed of QAT", str(report["seeds"]["train"])),
    )


def host_grid(report: Mapping[str, Any], more: Facts = ()) -> Grid:
    """The machine, with more facts about the run."""
    host = report["host"]
    quota = host["quota_cores"]
    facts = (
        ("CPU", host["cpu_model"]),
        ("Cores", text_format.count(host["cores"])),
        ("CPU quota", "none" if quota is None else f"{quota:g} cores"),
        ("Memory", text_format.size(host["memory_bytes"])),
        ("Kernel", host["kernel"]),
        ("Allocator", host["allocator"]),
        ("Microcode", host["microcode"] or "not told"),
        *more,
        ("CPU flags", " ".join(host["flags"])),
    )
    return Grid("Machine", words("", "Value"), facts)


def versions_grid(report: Mapping[str, Any]) -> Grid:
    """Everything installed that can change a result."""
    return Grid("Versions", words("Part", "Version"), tuple(sorted(report["versions"].items())))


def stages_grid(report: Mapping[str, Any]) -> Grid:
    """Time of each stage."""
    rows = tuple(
        (stage["name"], stage["status"], text_format.duration(stage["seconds"]), stage["key"][:16])
        for stage in report["stages"]
    )
    ran = sum(s["seconds"] for s in report["stages"] if s["status"] == "ran")
    columns = (*words("Stage", "Status"), *figures("Time"), *words("Key"))
    note = f"{text_format.duration(ran)} in the stages that ran. Reused stages show earlier times."
    return Grid("Stages", columns, rows, note)


def digest_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Digests of inputs and artifacts."""
    grids = []
    for title, key in (("Inputs", "inputs"), ("Artifacts", "artifacts")):
        rows, note = _shortened(
            [(f["path"], text_format.size(f["bytes"]), f["sha256"]) for f in report[key]], "files"
        )
        columns = (*words("File"), *figures("Size"), *words("SHA-256"))
        grids.append(Grid(title, columns, rows, note))
    return tuple(grids)
