"""Tables on the origin of the figures: audit, data, machine, versions, stages, checksums."""

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
    """Return the first rows, and a note that report.json contains the other rows."""
    if len(rows) <= limit:
        return tuple(rows), ""
    more = text_format.count(len(rows) - limit)
    return tuple(rows[:limit]), f"{more} more {what} in report.json."


def audit_blocks(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the ops in INT8, those in FP32 with reasons, and the executed primitives."""
    audit = report["audit"]
    folded = audit["folded"]
    counts = (
        f"Ops in INT8: {text_format.count(audit['int8_ops'])}. Ops left in FP32: "
        f"{text_format.count(len(audit['left_in_fp32']))}. Quantized op types: "
        f"{', '.join(audit['quantized_op_types']) or 'none'}. Fused into other ops: "
        f"{text_format.plural(folded['batch_norm'], 'batch norm')}, "
        f"{text_format.plural(folded['activation'], 'activation')}, "
        f"{text_format.plural(folded['residual_add'], 'residual addition')}."
    )
    blocks: list[Block] = [Text(counts)]
    if audit["left_in_fp32"]:
        rows, note = _shortened(
            [(one["op"], one["type"], one["reason"]) for one in audit["left_in_fp32"]],
            "ops",
        )
        blocks.append(Grid("Ops left in FP32", words("Op", "Type", "Reason"), rows, note))
    else:
        blocks.append(Text("Every op that can run in INT8 runs in INT8."))
    if types := audit.get("types_in_fp32"):
        kinds = tuple(
            (each["type"], text_format.count(each["count"]), each["reason"]) for each in types
        )
        columns = (*words("Type"), *figures("Ops"), *words("Reason"))
        blocks.append(Grid("Op types that always run in FP32", columns, kinds))
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
    source = f"From oneDNN's log (ONEDNN_VERBOSE). Total: {text_format.significant(total)} ms."
    return Grid("Primitives of the INT8 model", columns, rows, f"{source} {note}".strip())


def _operators_grid(audit: Mapping[str, Any]) -> Grid:
    before, after = audit["ops_before"], audit["ops_after"]
    types = sorted(before | after, key=lambda t: (-before.get(t, 0), -after.get(t, 0), t))
    rows = [
        (t, text_format.count(before.get(t, 0)), text_format.count(after.get(t, 0))) for t in types
    ]
    rows.append(
        ("total", text_format.count(sum(before.values())), text_format.count(sum(after.values())))
    )
    columns = (*words("Op type"), *figures("FP32 model", "INT8 model"))
    return Grid("Ops before and after conversion", columns, tuple(rows))


def data_blocks(report: Mapping[str, Any]) -> tuple[Block, ...]:
    """Return the splits with their sources, and the images that were skipped."""
    data = report["data"]
    splits = data["splits"]
    objects = data.get("objects")
    rows = tuple(
        (
            split,
            text_format.count(splits[split]["images"]),
            *((_object_count(objects, split),) if objects else ()),
            splits[split]["how"],
        )
        for split in ("train", "calibration", "selection", "test")
        if split in splits
    )
    counts = ("Images", "Objects") if objects else ("Images",)
    columns = (*words("Split"), *figures(*counts), *words("Source"))
    grid = Grid("Splits", columns, rows, objects_text(objects) if objects else "")
    layout = Text(f"Format {data['format']}, {text_format.count(data['classes'])} classes.")
    if not data["bad_images"]:
        return layout, grid, Text("No bad images.")
    bad, note = _shortened([(b["path"], b["reason"]) for b in data["bad_images"]], "bad images")
    title = f"Skipped: {text_format.plural(len(data['bad_images']), 'bad image')}"
    return layout, grid, Grid(title, words("Image", "Reason"), bad, note)


def _object_count(objects: Mapping[str, Any], split: str) -> str:
    found = objects["splits"].get(split)
    return text_format.DASH if found is None else text_format.count(found["objects"])


def objects_text(objects: Mapping[str, Any]) -> str:
    """Return how many images have no objects, and how many objects were dropped."""
    without = sum(each["images_without_objects"] for each in objects["splits"].values())
    dropped = text_format.plural(objects["empty_boxes"], "object")
    return (
        f"{text_format.plural(without, 'image')} without objects; {dropped} dropped, because the "
        "box has no width or no height."
    )


def isa_and_seeds(report: Mapping[str, Any]) -> Facts:
    """Return the instruction sets and the random seeds of a run."""
    return (
        ("Instruction set of FP32", report["isa"]["fp32"]),
        ("Instruction set of INT8", report["isa"]["int8"]),
        ("Random seed of the baseline", str(report["seeds"]["baseline"])),
        ("Random seed of QAT", str(report["seeds"]["train"])),
    )


def host_grid(report: Mapping[str, Any], more: Facts = ()) -> Grid:
    """Return the machine, followed by more facts about the run."""
    host = report["host"]
    quota = host["quota_cores"]
    facts = (
        ("CPU", host["cpu_model"]),
        ("Cores", text_format.count(host["cores"])),
        ("CPU quota", "none" if quota is None else f"{quota:g} cores"),
        ("Memory", text_format.size(host["memory_bytes"])),
        ("Kernel", host["kernel"]),
        ("Memory allocator", host["allocator"]),
        ("Microcode", host["microcode"] or "unknown"),
        *more,
        ("CPU flags", " ".join(host["flags"])),
    )
    return Grid("Machine", words("", "Value"), facts)


def versions_grid(report: Mapping[str, Any]) -> Grid:
    """Return the versions of the software that can change a result."""
    return Grid("Versions", words("Software", "Version"), tuple(sorted(report["versions"].items())))


def stages_grid(report: Mapping[str, Any]) -> Grid:
    """Return status, time and cache key of each stage."""
    rows = tuple(
        (stage["name"], stage["status"], text_format.duration(stage["seconds"]), stage["key"][:16])
        for stage in report["stages"]
    )
    ran = sum(s["seconds"] for s in report["stages"] if s["status"] == "ran")
    columns = (*words("Stage", "Status"), *figures("Time"), *words("Cache key"))
    note = (
        f"Total of the stages that ran: {text_format.duration(ran)}. A reused stage shows the time "
        "of its earlier run."
    )
    return Grid("Stages", columns, rows, note)


def checksum_grids(report: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Return size and checksum of each input file and each artifact."""
    grids = []
    for title, key in (("Inputs", "inputs"), ("Artifacts", "artifacts")):
        rows, note = _shortened(
            [(f["path"], text_format.size(f["bytes"]), f["sha256"]) for f in report[key]], "files"
        )
        columns = (*words("File"), *figures("Size"), *words("SHA-256"))
        grids.append(Grid(title, columns, rows, note))
    return tuple(grids)
