"""Small stages that run in real processes, and helpers to run them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from job.distributed.control import Coordinator
from job.distributed.group import meeting_of
from job.errors import DataError, JobError, PeerLost, TrainingError
from job.events import Events
from job.manifest import Manifest, parse
from job.pipeline.output_location import Location, place_of
from job.pipeline.plan import PlannedStage
from job.pipeline.request import ReportConfig, RunRequest
from job.pipeline.run import RunResult, plan, run
from job.stages.stage import Record, Stage, StageOutput

Inputs = Mapping[str, StageOutput]

STEPS = 40
# This file exists when the follower of two processes has finished.
BESIDE = "beside.done"


def first(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Write the same output for seeds with the same tens digit."""
    (out / "tens.txt").write_text(str(manifest.train.seed // 10))
    events.message("tens written", "warning")
    return {"tens": manifest.train.seed // 10, "seconds": time.time()}


def second(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    (out / "deep").mkdir()
    (out / "deep" / "copy.txt").write_text((inputs["first"].path / "tens.txt").read_text())
    (out / "metrics.jsonl").write_text(str(time.time_ns()))
    print("chatter of a library")
    for step in range(3):
        events.progress("second", step + 1, 3, "steps", "loss 0.5")
    return {"tens": inputs["first"].record["tens"], "threads": os.environ["OMP_NUM_THREADS"]}


def third(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    (out / "sum.txt").write_text("3")
    return {"from": sorted(inputs)}


def crash(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    print("about to divide")
    return {"result": 1 / (manifest.train.seed * 0)}


def bad_data(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    raise DataError("images/cat.png is truncated", "Fetch it again.")


def nan_loss(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    raise TrainingError("the loss is NaN at step 7", "Lower train.base_lr.")


def unjson(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    return {"loss": float("nan")}


def quits(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    sys.exit(3)


def killed(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def aborts(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
    os.abort()


def dies_after_record(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    import atexit

    atexit.register(os.abort)
    return {"fine": True}


def resumable(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Count to ten in a checkpoint; the first attempt is killed at five."""
    checkpoint = out / "checkpoints/count.txt"
    checkpoint.parent.mkdir(exist_ok=True)
    begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(begin, 10):
        checkpoint.write_text(str(step + 1))
        if begin == 0 and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
    return {"began_at": begin}


def patient(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Work for a minute; save and return after a stop signal."""
    checkpoint = out / "checkpoints/count.txt"
    checkpoint.parent.mkdir(exist_ok=True)
    begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
    for step in range(begin, 1200):
        events.progress("patient", step, 1200, "steps")
        if events.stopping:
            checkpoint.write_text(str(step))
            return {}
        if begin:
            return {"began_at": begin}
        time.sleep(0.05)
    return {"began_at": begin}


def counting(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Write like a training: a line for each step, the best result, the last two checkpoints."""
    folder, metrics = out / "checkpoints", out / "metrics.jsonl"
    folder.mkdir(exist_ok=True)
    done = 0
    for path in sorted(folder.glob("step-*"), reverse=True):
        if path.read_text() == f"after {int(path.name[5:])}":
            done = int(path.name[5:])
            break
        events.message(f"{path.name} is damaged", "warning")
    if done:
        events.message(f"resuming after step {done}")
    kept = metrics.read_text().splitlines()[:done] if metrics.exists() else []
    _replace(metrics, "".join(f"{line}\n" for line in kept))
    for step in range(done + 1, STEPS + 1):
        with metrics.open("a") as file:
            file.write(f"{step}\n")
        _replace(out / "best", f"best of {step}")
        _replace(folder / f"step-{step:03d}", f"after {step}")
        for old in sorted(folder.glob("step-*"))[:-2]:
            old.unlink()
        events.progress("counting", step, STEPS, "steps")
        if events.stopping:
            return {}
        time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0.01")))
    return {"sum": sum(map(int, metrics.read_text().split()))}


def _replace(path: Path, text: str) -> None:
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").replace(path)


def stubborn(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Ignore stop signals, and start another process."""
    events.message(f"pid {os.getpid()}")
    _ = events.stopping
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    events.message(f"pid {child.pid}")
    time.sleep(60)
    return {}


def leaves_a_process(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return {"pid": child.pid}


def writes_much(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    with (out / "model.bin").open("wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 16))
    return {}


def ends_with_others(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> None:
    """Return early because another process received a stop signal."""


def pair(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Return the rendezvous; end after the follower, like a training."""
    meeting = meeting_of(os.environ)
    deadline = time.monotonic() + 60
    while meeting and not (manifest.base / BESIDE).exists():
        assert time.monotonic() < deadline, "the follower did not finish"
        time.sleep(0.02)
    (manifest.base / BESIDE).unlink(missing_ok=True)
    place = [] if meeting is None else [*meeting.place]
    return {"place": place, "threads": os.environ["OMP_NUM_THREADS"]}


def beside_pair(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    meeting = meeting_of(os.environ)
    events.message(f"beside {meeting.rank if meeting else 'none'} with {sorted(inputs)}")
    events.progress("pair", 1, 1, "steps")
    (manifest.base / BESIDE).touch()
    return {}


def waits(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Wait without end, as in a collective operation."""
    events.message("waiting")
    time.sleep(120)
    return {}


def loses(manifest: Manifest, inputs: Inputs, out: Path, events: Events) -> Record:
    """Notice that another process died, before the supervisor notices."""
    time.sleep(0.3)
    raise PeerLost("another process of the training has ended: gloo reported it")


def stage(name: str, *needs: str, host_matters: bool = False, work: Any = None) -> Stage:
    """A stage whose settings depend on its name."""
    return Stage(
        name=name,
        output_dir=f"{name}_out",
        needs=needs,
        settings=SETTINGS.get(name, lambda manifest: {}),
        files=(lambda manifest: [manifest.path("weights.bin")]) if name == "first" else _no_files,
        run=work or globals()[name],
        host_matters=host_matters,
    )


def _no_files(manifest: Manifest) -> Sequence[Path]:
    return []


def broken(manifest: Manifest) -> Mapping[str, Any]:
    raise LookupError("a bug in the job")


SETTINGS: Mapping[str, Any] = {
    "broken": broken,
    "first": lambda manifest: {"train": {"seed": manifest.train.seed}},
    "second": lambda manifest: {"quantize": {"moving_rate": manifest.quantize.moving_rate}},
    "third": lambda manifest: {"benchmark": {"batch_sizes": manifest.benchmark.batch_sizes}},
}
CHAIN = (stage("first"), stage("second", "first"), stage("third", "second", host_matters=True))


def make_manifest(base: Path, *overrides: str) -> Manifest:
    """A manifest, and in its folder the external file of the first stage."""
    weights = base / "weights.bin"
    if not weights.exists():
        weights.write_bytes(b"weights")
    document = {
        "version": 1,
        "name": "tiny",
        "model": {
            "name": "convnet",
            "classes": 10,
            "input_shape": [3, 32, 32],
            "random_weights": True,
        },
        "data": {"format": "class_folders", "train_dir": "train"},
    }
    return parse(document, "test.json", base, overrides)


@dataclass
class Recorder:
    """A display that records events; ``lines`` has the events of stages."""

    lines: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    progressed: list[tuple[Any, ...]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def model_started(self, model: str, number: int, count: int) -> None:
        self.lines.append(f"{model} {number}/{count}")

    def stage_started(self, stage: str, reason: str) -> None:
        self.lines.append(f"{stage} runs: {reason}")

    def stage_reused(self, stage: str, reason: str) -> None:
        self.lines.append(f"{stage} reused: {reason}")

    def stage_finished(self, stage: str, seconds: float) -> None:
        self.lines.append(f"{stage} done")

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        self.progressed.append((stage, what, done, total, unit, note))

    def message(self, stage: str, text: str, level: str = "info") -> None:
        self.messages.append(f"{level} {stage}: {text}")

    def failed(self, error: JobError) -> None:
        self.lines.append(f"failed: {error}")


def build_report(
    manifest: Manifest,
    outputs: Inputs,
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
) -> Mapping[str, Any]:
    records = {name: dict(output.record) for name, output in outputs.items()}
    return {"status": "passed", "records": records, "stages": rows, "notes": list(notes)}


def render(report: Mapping[str, Any]) -> Mapping[str, str]:
    return {"report.json": json.dumps(report), "report.md": "# report", "report.html": "<html>"}


REPORTING = ReportConfig(build=build_report, render=render)


def go(
    manifest: Manifest,
    output: Location,
    stages: Sequence[Stage] = CHAIN,
    *,
    ui: Recorder | None = None,
    coordinator: Coordinator | None = None,
    report: ReportConfig = REPORTING,
    **options: Any,
) -> RunResult:
    """Run stages; options are fields of the request."""
    request = RunRequest(output, lambda manifest: stages, report, **options)
    return run(manifest, request, ui or Recorder(), coordinator)


def plan_of(
    manifest: Manifest, output: Location, stages: Sequence[Stage] = CHAIN, **options: Any
) -> tuple[PlannedStage, ...]:
    """Plan a run of stages, without a report by default; options are fields of the request."""
    return plan(manifest, RunRequest(output, lambda manifest: stages, **options))


COMMAND = (sys.executable, "-c", "import fake_stages; fake_stages.main()")


def main() -> None:
    """Run stages by name in a process, see ``COMMAND``; arguments: base, output, names."""
    base, output, *names = sys.argv[1:]
    try:
        with Path(base, "ui.txt").open("w", buffering=1) as file:
            ui = Recorder()
            ui.message = lambda stage, text, level="info": print(text, file=file)  # type: ignore[method-assign]
            ui.progress = lambda *values: print(*values, file=file)  # type: ignore[method-assign]
            stages = [stage(name) for name in names]
            overrides = os.environ.get("FAKE_OVERRIDES", "").split()
            go(make_manifest(Path(base), *overrides), place_of(output), stages, ui=ui)
    except JobError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def names(folder: Path) -> list[str]:
    """Names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())
