"""benchmark: FP32 against INT8, interleaved, for each ISA cap, scenario and batch size."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from job.benchmark import cpu_pinning
from job.benchmark.rounds import NATIVE, ONEDNN, TimingBudget, measure
from job.benchmark.rows import INT8, OTHER_ENGINES, row, score_difference
from job.benchmark.samples import BenchmarkSetting
from job.benchmark.timer import Candidate
from job.events import Events
from job.host import read_host
from job.manifest import Manifest
from job.profile import breakdown, onednn_log
from job.profile import record as record_
from job.stages.settings import settings_of
from job.stages.stage import Record, Stage, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write samples.json, every latency that was measured; the record is table II."""
    spec = manifest.benchmark
    effort = TimingBudget(spec.warmup_batches, spec.min_seconds, spec.min_samples, spec.rounds)
    by_cap = {cap: settings_under(cap, manifest) for cap in spec.isa}
    cpu_pinning.check([setting for settings in by_cap.values() for setting in settings])
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    for cap, settings in by_cap.items():
        isa = executed_isa(inputs["int8"].path / "model", manifest.model.input_shape, cap)
        given_up: list[BenchmarkSetting] = []
        for place, setting in enumerate(settings):
            native = not any(is_larger(setting, smaller) for smaller in given_up)
            racing = candidates(inputs, native=native)
            measured = measure(racing, setting, effort, isa=isa, events=events)
            if measured is None:
                return {}
            if NATIVE not in {one.label for one in measured.samples}:
                given_up.append(setting)
            # The same setting under the first cap; the caps' settings stand in the same order.
            difference = (
                score_difference(measured.scores, raw[place]["scores"])
                if cap != spec.isa[0]
                else None
            )
            rows.append({**row(measured), "score_difference": difference})
            raw.append(asdict(measured))
    (out / "samples.json").write_text(json.dumps(raw))
    parts = breakdowns(manifest, inputs, events)
    # The report may be made later, and elsewhere.
    host = read_host().as_report()
    return {} if events.stopping else {"rows": rows, "breakdown": parts, "host": host}


def breakdowns(
    manifest: Manifest, inputs: Mapping[str, StageOutput], events: Events
) -> list[dict[str, Any]]:
    """Where the time goes under each ISA cap, in calls of the smallest batch."""
    fp32, int8 = inputs["baseline"].path / "model", inputs["int8"].path / "model"
    caps, batch_size = manifest.benchmark.isa, min(manifest.benchmark.batch_sizes)
    found = []
    for done, cap in enumerate(caps):
        if events.stopping:
            break
        events.progress("benchmark", done, len(caps), "ISA caps", "where the time goes")
        shape = manifest.model.input_shape
        found.append(breakdown.measure(fp32, int8, shape, cap, batch_size=batch_size))
    return found


def settings_under(cap: str, manifest: Manifest) -> list[BenchmarkSetting]:
    """All rows of table II under one ISA cap."""
    spec, shape = manifest.benchmark, manifest.model.input_shape
    scenarios = [(threads, 1) for threads in spec.threads]
    scenarios += [(1, instances) for instances in spec.instances]
    return [
        BenchmarkSetting(batch_size, threads, shape, instances, cap)
        for threads, instances in scenarios
        for batch_size in spec.batch_sizes
    ]


def is_larger(setting: BenchmarkSetting, other: BenchmarkSetting) -> bool:
    """Whether a setting differs by its larger batch alone.

    Native kernels that were hopeless at a small batch, where they cost least besides computing, are
    so at a larger one, where finding it out takes up to a minute.
    """
    alike = replace(setting, batch_size=other.batch_size) == other
    return alike and setting.batch_size > other.batch_size


def candidates(inputs: Mapping[str, StageOutput], *, native: bool) -> list[Candidate]:
    """What is timed: FP32 in Paddle's engines, and every INT8 model."""
    fp32, int8 = inputs["baseline"].path / "model", inputs["int8"].path / "model"
    paddle = [Candidate(ONEDNN, fp32), Candidate(INT8, int8)]
    if native:
        paddle.insert(0, Candidate(NATIVE, fp32))
    others = [name for name in OTHER_ENGINES if name in inputs]
    return paddle + [Candidate(name, inputs[name].path) for name in others]


def executed_isa(int8: Path, input_shape: tuple[int, int, int], cap: str) -> str:
    """The instruction set of the INT8 kernels that run under a cap, from oneDNN's own log."""
    ran = record_.trace(int8, INT8, input_shape, isa_cap=cap)
    quantized = onednn_log.isa(primitive for primitive in ran if primitive.is_int8)
    # oneDNN's reference kernels name no instruction set.
    return quantized or onednn_log.isa(ran) or "none"


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """What is timed, and for how long."""
    return {"benchmark": settings_of(manifest.benchmark)}


NEEDS = ("baseline", "int8")
STAGE = Stage("benchmark", "benchmark", NEEDS, settings, lambda _: (), run, host_matters=True)
