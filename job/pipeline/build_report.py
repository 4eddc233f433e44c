"""report: everything that the stages recorded, in one document, with the gates' verdicts."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.manifest import Manifest
from job.pipeline.fingerprint import library_versions, package_versions
from job.stages.dataset import data_files
from job.stages.engine_packages import PACKAGES
from job.stages.network import model_files
from job.stages.stage import StageOutput
from job.storage.digests import hash_file

MODELS = {"fp32": "baseline", "qat_fake": "convert", "int8": "int8"}
SIZES = (".pdmodel", ".pdiparams")


def build(
    manifest: Manifest,
    outputs: Mapping[str, StageOutput],
    stage_rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The report, as ``schemas/report.schema.json`` describes it.

    Args:
        manifest: what was asked for.
        outputs: what each stage left.
        stage_rows: name, status, seconds and key of each stage.
        notes: remarks on the run, such as a waived requirement.
    """
    records = {name: output.record for name, output in outputs.items()}
    accuracy = None if "skipped" in records["accuracy"] else dict(records["accuracy"])
    rows = records["benchmark"]["rows"]
    int8 = dict(records["int8"])
    isa, _ = int8.pop("isa"), int8.pop("bytes")
    verdicts = gates(manifest, accuracy, rows)
    trained = [records[name]["bad_images"] for name in ("baseline", "qat")]
    data = dict(records["prepare"])
    data["bad_images"] = unique([*data["bad_images"], *(image for bad in trained for image in bad)])
    return {
        "version": 1,
        "name": manifest.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "passed" if all(gate["passed"] for gate in verdicts) else "gate_failed",
        "comparable": True,
        "notes": [
            *notes,
            *synthetic_notes(manifest),
            *training_notes(records),
            *correction_notes(int8["corrected"]),
            *fallback_notes(int8["fallback"]),
        ],
        "manifest": dict(manifest.resolved),
        "host": dict(records["benchmark"]["host"]),
        "versions": versions(outputs),
        "isa": isa,
        "seeds": {"baseline": records["baseline"]["seed"], "train": records["qat"]["seed"]},
        "inputs": inputs(manifest),
        "artifacts": artifacts(outputs),
        "data": data,
        "models": models(outputs),
        "training": {name: records[name]["training"] for name in ("baseline", "qat")},
        "accuracy": accuracy,
        "benchmark": list(rows),
        "audit": int8,
        "breakdown": list(records["benchmark"]["breakdown"]),
        "gates": verdicts,
        "stages": [dict(row) for row in stage_rows],
    }


def versions(outputs: Mapping[str, StageOutput]) -> dict[str, str]:
    """What is installed, with the engines that models were made for."""
    engines = [name for engine in PACKAGES if engine in outputs for name in PACKAGES[engine]]
    return {**library_versions(), **package_versions(engines)}


def gates(
    manifest: Manifest, accuracy: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The verdict on each gate that the manifest sets."""
    spec = manifest.gates
    verdicts = []
    if spec.max_top1_drop is not None and accuracy is not None:
        drop = accuracy["paired"]["top1_drop"]
        # Drops are multiples of 100 / images: the sum's rounding must not decide.
        passed = drop <= spec.max_top1_drop + 1e-9
        verdicts.append(verdict("max_top1_drop", spec.max_top1_drop, drop, passed))
    if spec.min_speedup is not None:
        slowest = min(row["ratio"] for row in rows)
        passed = slowest >= spec.min_speedup
        verdicts.append(verdict("min_speedup", spec.min_speedup, slowest, passed))
    return verdicts


def verdict(name: str, limit: float, value: float, passed: bool) -> dict[str, Any]:
    """One row of ``gates``."""
    return {"name": name, "limit": limit, "value": value, "passed": passed}


def synthetic_notes(manifest: Manifest) -> list[str]:
    """What random images mean for the figures."""
    if manifest.data.format != "synthetic":
        return []
    model = manifest.model
    given = model.weights or model.pretrained or model.inference_model
    weights = "the weights that were given" if given else "untrained weights"
    return [
        f"Synthetic images and {weights}: speed only. Nothing was trained and no accuracy is "
        "reported."
    ]


def training_notes(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What was switched off or on for QAT without being asked."""
    qat = records["qat"]["training"]
    if qat is None:
        return ["Quantized without further training: scales are from the calibration split alone."]
    notes = [
        "sync_batch_norm and fuse_all_reduce_ops are off in quantization-aware training: "
        "both rewrite the program that quantization has rewritten."
    ]
    if qat["freeze_bn_stats"]:
        notes.append("Batch-norm statistics were kept as the baseline had them.")
    return notes


def correction_notes(corrected: Mapping[str, int]) -> list[str]:
    """What of Paddle's INT8 graph was corrected."""
    sums, matrices = corrected["residual_sums"], corrected["matrix_scales"]
    notes = []
    if sums:
        notes.append(f"Residual sums kept from losing half their range in INT8: {sums}.")
    if matrices:
        notes.append(f"Fully connected layers kept from other weights' scales: {matrices}.")
    return notes


def fallback_notes(fallback: Mapping[str, Any] | None) -> list[str]:
    """What leaving ops in FP32 brought."""
    if fallback is None:
        return []
    drops, kept = [step["top1_drop"] for step in fallback["steps"]], fallback["kept"]
    where = "top-1 drop on the selection split"
    if not kept:
        return [f"Fallback left no operator in FP32: with all in INT8 the {where} is the best."]
    what = "1 operator" if kept == 1 else f"{kept} operators"
    return [
        f"Fallback left {what} in FP32, which took the {where} from {drops[0]:.2f} to "
        f"{drops[kept]:.2f} points."
    ]


def unique(images: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Each bad image once."""
    return list({image["path"]: image for image in images}.values())


def inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """Size and digest of each input file; of a folder, those of the lists in it that are named."""
    data = manifest.data
    lists = (data.train_list, data.selection_list, data.val_list)
    root = manifest.path(data.root) if data.root else None
    named = [root / name for name in lists if root is not None and name]
    files = [path for path in data_files(manifest) if path.is_file()]
    return [digest(path) for path in (*model_files(manifest), *files, *named) if path.is_file()]


def digest(path: Path) -> dict[str, Any]:
    """Path, size and SHA-256 of an input file."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": hash_file(path)}


def artifacts(outputs: Mapping[str, StageOutput]) -> list[dict[str, Any]]:
    """Every file that a stage left, relative to the output folder."""
    rows = []
    for output in outputs.values():
        for name, entry in sorted(files(output).items()):
            path = f"{output.path.name}/{name}"
            rows.append({"path": path, "bytes": entry["bytes"], "sha256": entry["sha256"]})
    return rows


def files(output: StageOutput) -> dict[str, dict[str, Any]]:
    """Size and digest of each file that a stage left; the files themselves may be elsewhere."""
    found: dict[str, dict[str, Any]] = json.loads((output.path / "stage.json").read_bytes())[
        "files"
    ]
    return found


def models(outputs: Mapping[str, StageOutput]) -> dict[str, dict[str, Any]]:
    """Folder and size of each model."""
    sizes = {}
    for name, stage in MODELS.items():
        left = files(outputs[stage])
        size = sum(left[f"model{suffix}"]["bytes"] for suffix in SIZES)
        sizes[name] = {"path": outputs[stage].path.name, "bytes": size}
    for name in PACKAGES:
        if name in outputs:
            output = outputs[name]
            sizes[name] = {"path": output.path.name, "bytes": output.record["bytes"]}
    return sizes
