"""benchmark: FP32 against INT8, interleaved, for each batch size and thread count."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job import benchmark
from job.events import Events
from job.manifest import Manifest
from job.stages.inputs import settings_of
from job.stages.stage import Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write samples.json, every latency that was measured; the record is table II."""
    spec = manifest.benchmark
    fp32, int8 = inputs["baseline"].path / "model", inputs["int8"].path / "model"
    candidates = (
        benchmark.Candidate("native", fp32),
        benchmark.Candidate("onednn", fp32),
        benchmark.Candidate("int8", int8),
    )
    rows, raw = [], []
    for threads in spec.threads:
        for batch_size in spec.batch_sizes:
            setting = benchmark.Setting(batch_size, threads, manifest.model.input_shape)
            samples = benchmark.measure(
                candidates,
                setting,
                warmup_batches=spec.warmup_batches,
                min_seconds=spec.min_seconds,
                rounds=spec.rounds,
                events=events,
            )
            if events.stopping:
                return {}
            isa = str(inputs["int8"].record["isa"]["int8"])
            rows.append(benchmark.row(samples, setting, isa))
            raw.append({"setting": asdict(setting), "samples": [asdict(one) for one in samples]})
    (out / "samples.json").write_text(json.dumps(raw))
    return {"rows": rows}


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """What is timed, and for how long."""
    return {"benchmark": settings_of(manifest.benchmark)}


NEEDS = ("baseline", "int8")
STAGE = Stage("benchmark", "benchmark", NEEDS, settings, lambda _: (), run, host_matters=True)
