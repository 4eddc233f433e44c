"""Builds report.json from the records of all stages, and compares the result with the gates."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from job.manifest import Manifest
from job.pipeline.fingerprint import library_versions, package_versions
from job.report.views import VIEWS, View
from job.stages.data_notes import data_notes
from job.stages.dataset import data_files
from job.stages.engine_packages import PACKAGES, PADDLE_OPENVINO, REJECTED, built
from job.stages.network import model_files
from job.stages.stage import StageOutput
from job.stages.task import task_of
from job.storage.digests import hash_file
from job.text_format import plural

MODELS = {"fp32": "baseline", "qat_fake": "convert", "int8": "int8"}
LABELS = {"fp32": "FP32", "qat_fake": "Fake-quantized", "int8": "INT8"}
# Two models, and the key of their comparison in the accuracy record.
PAIRS = (
    ("fp32", "qat_fake", "paired_fake"),
    ("qat_fake", "int8", "paired_int8_fake"),
    ("fp32", "int8", "paired"),
)
SIZES = (".pdmodel", ".pdiparams")


def build(
    manifest: Manifest,
    outputs: Mapping[str, StageOutput],
    stage_rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the report, which matches ``schemas/report.schema.json``.

    Args:
        manifest: the manifest of the run.
        outputs: record and folder of each stage.
        stage_rows: name, status, seconds and key of each stage.
        notes: notes on the run, such as a CPU without AVX512_VNNI.
    """
    records = {name: output.record for name, output in outputs.items()}
    accuracy = None if "skipped" in records["accuracy"] else dict(records["accuracy"])
    rows = records["benchmark"]["rows"]
    int8 = dict(records["int8"])
    isa, interfaces, _ = (int8.pop(key) for key in ("isa", "interfaces", "bytes"))
    verdicts = gates(manifest, int8["agreement"], accuracy, rows)
    trained = [records[name]["bad_images"] for name in ("baseline", "qat")]
    data = dict(records["prepare"])
    data["bad_images"] = unique([*data["bad_images"], *(image for bad in trained for image in bad)])
    return {
        "version": 1,
        "name": manifest.name,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "gate_failed" if any(gate["passed"] is False for gate in verdicts) else "passed",
        "comparable": True,
        "notes": [
            *notes,
            *data_notes(data),
            *synthetic_notes(manifest),
            *training_notes(records),
            *correction_notes(int8["corrected"]),
            *fallback_notes(int8["fallback"]),
            *match_notes(int8["agreement"]["kept_in_fp32"]),
            *engine_notes(manifest.benchmark.engines, outputs),
            *difference_notes(VIEWS[manifest.task], accuracy),
        ],
        "manifest": dict(manifest.resolved),
        "host": dict(records["benchmark"]["host"]),
        "versions": versions(outputs),
        "isa": isa,
        "seeds": {"baseline": records["baseline"]["seed"], "train": records["qat"]["seed"]},
        "inputs": inputs(manifest),
        "artifacts": artifacts(outputs),
        "data": data,
        "models": models(outputs, interfaces),
        "training": {name: records[name]["training"] for name in ("baseline", "qat")},
        "calibration": records["calibrate"]["calibration"],
        "accuracy": accuracy,
        "benchmark": list(rows),
        "audit": int8,
        "breakdown": list(records["benchmark"]["breakdown"]),
        "gates": verdicts,
        "stages": [dict(row) for row in stage_rows],
    }


def versions(outputs: Mapping[str, StageOutput]) -> dict[str, str]:
    """Return the versions of the installed libraries and of the engines used."""
    engines = [name for engine in PACKAGES if engine in outputs for name in PACKAGES[engine]]
    return {**library_versions(), **package_versions(engines)}


def gates(
    manifest: Manifest,
    agreement: Mapping[str, Any],
    accuracy: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Return the result of each gate that the manifest sets."""
    spec = manifest.gates
    verdicts = match_gate(manifest, agreement)
    gate = VIEWS[manifest.task].gate
    limit: float | None = getattr(spec, gate.name)
    if limit is not None and accuracy is not None:
        value = gate.measured(accuracy)
        reason = task_of(manifest).not_judged(accuracy, manifest.model.classes)
        verdicts.append(verdict(gate.name, limit, value, gate.passed(limit, value), reason))
    if spec.min_speedup is not None:
        verdicts.append(_speed_verdict(spec.min_speedup, rows))
    return verdicts


def _speed_verdict(limit: float, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the result of the gate ``min_speedup``."""
    slowest = min(rows, key=lambda row: float(row["ratio"]))
    found = verdict("min_speedup", limit, slowest["ratio"], slowest["ratio"] >= limit)
    if not found["passed"] and not slowest["stable"]:
        causes = " and ".join(reason["what"] for reason in slowest["unstable_reasons"])
        found["reason"] = f"The slowest speedup is unstable ({causes}), so measure again."
    return found


def match_gate(manifest: Manifest, agreement: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the result of the gate ``int8_matches_fake``; empty if it is disabled."""
    limit = manifest.gates.int8_matches_fake
    if limit is None:
        return []
    decibels = agreement["int8_fake"]["signal_to_noise_db"]
    return [verdict("int8_matches_fake", limit, decibels, decibels >= limit)]


def verdict(
    name: str, limit: float, value: float, passed: bool, unjudged: str = ""
) -> dict[str, Any]:
    """Return one row of ``gates``; ``unjudged`` is the reason why the gate cannot be judged."""
    return {
        "name": name,
        "limit": limit,
        "value": value,
        "passed": None if unjudged else passed,
        "reason": unjudged or None,
    }


def synthetic_notes(manifest: Manifest) -> list[str]:
    """Return a note that only speed was measured, if the images are synthetic."""
    if manifest.data.format != "synthetic":
        return []
    model = manifest.model
    given = model.weights or model.pretrained or model.inference_model
    weights = "the weights are from the manifest" if given else "the weights are random"
    return [
        f"Only speed was measured: the images are synthetic and {weights}. No model was trained "
        "and no accuracy is reported."
    ]


def training_notes(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return notes on settings of QAT that differ from the training of the baseline."""
    qat = records["qat"]["training"]
    if qat is None:
        return ["Post-training quantization: the quantized model was calibrated and not trained."]
    notes = [
        "sync_batch_norm and fuse_all_reduce_ops are disabled in quantization-aware training, "
        "because both would rewrite the quantized program."
    ]
    if qat["freeze_bn_stats"]:
        notes.append("Batch-norm statistics were frozen at the values of the baseline.")
    return notes


def correction_notes(corrected: Mapping[str, int]) -> list[str]:
    """Return notes on corrections of Paddle's INT8 graph."""
    sums, matrices = corrected["residual_sums"], corrected["matrix_scales"]
    notes = []
    if sums:
        uses = "sum uses a wider scale" if sums == 1 else "sums use wider scales"
        clipped = "its" if sums == 1 else "their"
        notes.append(f"{sums} residual {uses}, because Paddle would clip half {clipped} range.")
    if matrices:
        use = "layer uses" if matrices == 1 else "layers use"
        notes.append(
            f"{matrices} fully connected {use} corrected weight scales, because Paddle computes "
            "them from the transposed weight matrix."
        )
    return notes


def fallback_notes(fallback: Mapping[str, Any] | None) -> list[str]:
    """Return a note on the effect of keeping ops in FP32."""
    if fallback is None:
        return []
    steps, kept = fallback["steps"], fallback["kept"]
    by_ratio = fallback["measure"] == "signal_to_noise"
    if by_ratio:
        ratios = [step["signal_to_noise_db"] for step in steps]
        what, best = "the signal-to-noise ratio", "largest"
        change = f"{ratios[0]:.1f} to {ratios[kept]:.1f} dB"
    else:
        drops = [step["top1_drop"] for step in steps]
        what, best = "the top-1 drop", "smallest"
        change = f"{drops[0]:.2f} to {drops[kept]:.2f} percentage points"
    few = " The split has too few images to measure the limit of the top-1 drop." * by_ratio
    if not kept:
        return [
            f"Fallback keeps no op in FP32, because {what} on the selection split is "
            f"{best} with all ops in INT8.{few}"
        ]
    return [
        f"Fallback keeps {plural(kept, 'op')} in FP32, which changes {what} on the "
        f"selection split from {change}.{few}"
    ]


def match_notes(kept: Sequence[str]) -> list[str]:
    """Return a note on the ops that the search keeps in FP32."""
    if not kept:
        return []
    stay = "stays" if len(kept) == 1 else "stay"
    return [
        f"{plural(len(kept), 'op')} {stay} in FP32, because the INT8 model would otherwise "
        f"differ too much from the fake-quantized model: {', '.join(kept)}."
    ]


def engine_notes(engines: Sequence[str], outputs: Mapping[str, StageOutput]) -> list[str]:
    """Return a note for each engine of the manifest whose INT8 model was not written."""
    reasons = {name: outputs[name].record.get(REJECTED) for name in PACKAGES if name in outputs}
    notes = [
        f"{outputs[name].path.name}/ contains no model, because {reason}."
        for name, reason in reasons.items()
        if reason
    ]
    if PADDLE_OPENVINO in engines and PADDLE_OPENVINO not in outputs:
        notes.append(
            "INT8 for the OpenVINO engine in Paddle was not built, because the installed Paddle "
            "does not contain this engine."
        )
    return notes


def difference_notes(view: View, accuracy: Mapping[str, Any] | None) -> list[str]:
    """Return a note for each pair of models that differ by more than chance explains."""
    measure = view.primary
    if accuracy is None or measure is None:
        return []
    notes = []
    for first, second, name in PAIRS:
        pair = accuracy[name]
        low, high = pair[f"{measure.key}_drop_interval"] or (0, 0)
        if low <= 0 <= high:
            continue
        one, two = accuracy[first][measure.key], accuracy[second][measure.key]
        notes.append(
            f"{LABELS[second]} {measure.short} ({two:.2f}%) differs from {LABELS[first]} "
            f"{measure.short} ({one:.2f}%) by {two - one:+.2f} points (95% interval "
            f"{-high:+.2f} to {-low:+.2f})."
        )
    return notes


def unique(images: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return each bad image once."""
    return list({image["path"]: image for image in images}.values())


def inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """Return size and SHA-256 of each input file; in a data folder, only of its list files."""
    data = manifest.data
    lists = (data.train_list, data.selection_list, data.val_list)
    root = manifest.path(data.root) if data.root else None
    named = [root / name for name in lists if root is not None and name]
    files = [path for path in data_files(manifest) if path.is_file()]
    return [digest(path) for path in (*model_files(manifest), *files, *named) if path.is_file()]


def digest(path: Path) -> dict[str, Any]:
    """Return path, size and SHA-256 of an input file."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": hash_file(path)}


def artifacts(outputs: Mapping[str, StageOutput]) -> list[dict[str, Any]]:
    """Return size and SHA-256 of every output file, by path relative to the output folder."""
    rows = []
    for output in outputs.values():
        for name, entry in sorted(files(output).items()):
            path = f"{output.path.name}/{name}"
            rows.append({"path": path, "bytes": entry["bytes"], "sha256": entry["sha256"]})
    return rows


def files(output: StageOutput) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of a stage's files, as in stage.json. The files may be in S3 only."""
    record: dict[str, dict[str, dict[str, Any]]]
    record = json.loads((output.path / "stage.json").read_bytes())
    return record["files"]


def network_interface(int8: Mapping[str, Any]) -> dict[str, Any]:
    """Return the interface of the INT8 model's network, without decoding and NMS.

    Every engine runs this network, so the meaning of the output is INT8's.
    """
    return {key: value for key, value in int8.items() if key != "detector"}


def models(
    outputs: Mapping[str, StageOutput], interfaces: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return folder, size and interface of each model."""
    sizes = {}
    for name, stage in MODELS.items():
        saved = files(outputs[stage])
        size = sum(saved[f"model{suffix}"]["bytes"] for suffix in SIZES)
        sizes[name] = {"path": outputs[stage].path.name, "bytes": size}
        if name in interfaces:
            sizes[name]["interface"] = dict(interfaces[name])
    for name in built(outputs):
        record = outputs[name].record
        sizes[name] = {
            "path": outputs[name].path.name,
            "bytes": record["bytes"],
            "interface": {**network_interface(interfaces["int8"]), **record["interface"]},
            **({"agreement": record["agreement"]} if "agreement" in record else {}),
            **({"isa": record["isa"]["int8"]} if "isa" in record else {}),
        }
    return sizes
