"""benchmark: times FP32 and INT8 alternately, for each ISA cap, scenario and batch size."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from job.benchmark import cpu_pinning
from job.benchmark.rounds import ENGINE_FP32, NATIVE, ONEDNN, TimingBudget, measure
from job.benchmark.rows import INT8, row, score_difference
from job.benchmark.samples import BenchmarkSetting
from job.benchmark.timer import Candidate
from job.events import Events
from job.host import read_host
from job.manifest import Manifest
from job.profile import breakdown, onednn_log
from job.profile import record as record_
from job.stages.engine_packages import PADDLE_OPENVINO, built
from job.stages.settings import settings_of
from job.stages.stage import Record, Stage, StageOutput

NO_CAP = "all"


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write samples.json with every measured latency; the record is table II."""
    spec = manifest.benchmark
    budget = TimingBudget(spec.warmup_batches, spec.min_seconds, spec.min_samples, spec.rounds)
    by_cap = {cap: settings_under(cap, manifest) for cap in spec.isa}
    cpu_pinning.check([setting for settings in by_cap.values() for setting in settings])
    rows: list[dict[str, Any]] = []
    raw: list[dict[str, Any]] = []
    for cap, settings in by_cap.items():
        isa = executed_isa(inputs["int8"], INT8, manifest.model.input_shape, cap)
        engine_isa = {
            name: executed_isa(inputs[name], name, manifest.model.input_shape, cap)
            for name in built(inputs)
            if name == PADDLE_OPENVINO
        }
        without_native: list[BenchmarkSetting] = []
        for index, setting in enumerate(settings):
            native = not any(is_larger(setting, smaller) for smaller in without_native)
            timed = candidates(inputs, native=native)
            measured = measure(timed, setting, budget, isa=isa, events=events)
            if measured is None:
                return {}
            if NATIVE not in {samples.label for samples in measured.samples}:
                without_native.append(setting)
            # All caps have the same settings in the same order, so raw[index] is this setting under
            # the first cap.
            difference = (
                score_difference(measured.scores, raw[index]["scores"])
                if cap != spec.isa[0]
                else None
            )
            rows.append({**row(measured, engine_isa), "score_difference": difference})
            raw.append(asdict(measured))
    (out / "samples.json").write_text(json.dumps(raw))
    parts = breakdowns(manifest, inputs, events)
    # Recorded here, because the report can be made later on another machine.
    host = read_host().as_report()
    return {} if events.stopping else {"rows": rows, "breakdown": parts, "host": host}


def breakdowns(
    manifest: Manifest, inputs: Mapping[str, StageOutput], events: Events
) -> list[dict[str, Any]]:
    """Measure the time per layer under each ISA cap, with the smallest batch size."""
    fp32, int8 = inputs["baseline"].path / "model", inputs["int8"].path / "model"
    caps, batch_size = manifest.benchmark.isa, min(manifest.benchmark.batch_sizes)
    measured = []
    for done, cap in enumerate(caps):
        if events.stopping:
            break
        events.progress("benchmark", done, len(caps), "ISA caps", "time per layer")
        shape = manifest.model.input_shape
        measured.append(breakdown.measure(fp32, int8, shape, cap, batch_size=batch_size))
    return measured


def settings_under(cap: str, manifest: Manifest) -> list[BenchmarkSetting]:
    """Return the settings of all rows of table II under one ISA cap."""
    spec, shape = manifest.benchmark, manifest.model.input_shape
    scenarios = [(threads, 1) for threads in spec.threads]
    scenarios += [(1, instances) for instances in spec.instances]
    return [
        BenchmarkSetting(batch_size, threads, shape, instances, cap)
        for threads, instances in scenarios
        for batch_size in spec.batch_sizes
    ]


def is_larger(setting: BenchmarkSetting, other: BenchmarkSetting) -> bool:
    """Return whether a setting differs from another setting only by a larger batch size.

    Native kernels that were too slow to time at a small batch size are too slow at a larger one.
    Measuring this again would take up to a minute.
    """
    alike = replace(setting, batch_size=other.batch_size) == other
    return alike and setting.batch_size > other.batch_size


def candidates(inputs: Mapping[str, StageOutput], *, native: bool) -> list[Candidate]:
    """Return the models to time: FP32 in Paddle's engines, and all INT8 models."""
    fp32, int8 = inputs["baseline"].path / "model", inputs["int8"].path / "model"
    paddle = [Candidate(ONEDNN, fp32), Candidate(INT8, int8)]
    if native:
        paddle.insert(0, Candidate(NATIVE, fp32))
    engines = built(inputs)
    if PADDLE_OPENVINO in engines:
        paddle.append(Candidate(ENGINE_FP32, fp32))
    return paddle + [Candidate(name, inputs[name].path) for name in engines]


def executed_isa(model: StageOutput, mode: str, input_shape: tuple[int, int, int], cap: str) -> str:
    """Return the ISA of the INT8 kernels that run under a cap, from oneDNN's log."""
    if cap == NO_CAP:
        # The stage that wrote the model has logged its kernels on this kind of CPU.
        return str(model.record["isa"]["int8"])
    ran = record_.trace(model.path / "model", mode, input_shape, isa_cap=cap)
    return onednn_log.int8_isa(ran)


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the timings."""
    return {"benchmark": settings_of(manifest.benchmark)}


NEEDS = ("baseline", "int8")
STAGE = Stage("benchmark", "benchmark", NEEDS, settings, lambda _: (), run, host_matters=True)
