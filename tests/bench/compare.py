"""Compares speed and accuracy of INT8 in a run of manifest.json with recorded.json.

python tests/bench/compare.py RUN            compare; exit code 1 if anything got worse, 2 if the
                                             measurement is too imprecise to exclude a loss of 5%
python tests/bench/compare.py RUN --again    measure the networks again that this found; only what
                                             both measurements find is a fault
python tests/bench/compare.py RUN --record   record the figures of this run

All rounds of a run share the state of the machine, so the figures of two runs differ by more than
the intervals within a run. Therefore a loss counts only if a second measurement finds it too.

Ratios and scores are recorded for each executed instruction set, so one file contains the figures
of all machines. If an instruction set has no figures, nothing is compared, and the output states
this.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded.json")
MANIFEST = Path(__file__).with_name("manifest.json")
# In the folder of a run: what the last comparison found.
FOUND = "compared.json"
# A ratio may be this much smaller than the recorded one, if both were measured on the same kind of
# machine. Process starts alone change the ratio of a round by one to three percent.
LOSS = 0.05
# Limit for other machines. Machines with the same instruction set differ by less.
OTHER_MACHINE_LOSS = 0.15
# Probability that a comparison without any loss reports one, in all rows together.
FALSE_ALARMS = 0.05
# Probability that a loss of 5% is not detected, in each row.
MISSED = 0.025
# Largest change of a score, as a share of the range of all scores. Rounding of sums changes a score
# by less, and another image by more.
SCORE_TOLERANCE = 0.005
IMAGES, CLASSES = 2, 64
PADDLE = "paddle"


@dataclass(frozen=True)
class Fault:
    """Something that got worse.

    Attributes:
        what: the row, and the engine or the figure.
        certain: whether the measurement is precise enough to be sure.
        text: what was measured and recorded.
    """

    what: str
    certain: bool
    text: str

    @property
    def model(self) -> str:
        """The network."""
        return self.what.partition(",")[0]


@dataclass(frozen=True)
class Change:
    """A ratio over the recorded ratio, as logarithms: mean, standard error, degrees of freedom."""

    mean: float
    error: float
    freedom: float

    def bounds(self, tail: float) -> tuple[float, float]:
        """Bounds of the change in percent; each tail outside the bounds has this probability."""
        from scipy.stats import t as student

        half = float(student.ppf(1 - tail, self.freedom)) * self.error
        return 100 * math.expm1(self.mean - half), 100 * math.expm1(self.mean + half)


def change(now: Mapping[str, Any], then: Mapping[str, Any], rounds: tuple[int, int]) -> Change:
    """Compare two ratios, each the mean of paired rounds with its 95% interval (Welch, 1947)."""
    from scipy.stats import t as student

    variances = []
    for one, count in zip((now, then), rounds, strict=True):
        low, high = one["interval"]
        quantile = float(student.ppf(0.975, count - 1))
        variances.append((math.log(high / low) / (2 * quantile)) ** 2)
    total = sum(variances)
    parts = sum(v * v / (count - 1) for v, count in zip(variances, rounds, strict=True))
    freedom = total * total / parts if parts else min(rounds) - 1
    return Change(math.log(now["ratio"] / then["ratio"]), math.sqrt(total), freedom)


def figures(run: Path) -> dict[str, dict[str, Any]]:
    """What is recorded of a finished run: name -> ratios, INT8 ops, scores; and if it is stable."""
    found: dict[str, dict[str, Any]] = {}
    report = json.loads((run / "report.json").read_bytes())
    machine = f"{report['host']['cpu_model']}, {report['host']['allocator']}"
    for entry in report["matrix"]:
        name = entry["model"]
        if entry["error"]:
            raise SystemExit(f"{name}: {entry['error']['message']}")
        samples = json.loads((run / name / "benchmark" / "samples.json").read_bytes())
        same: dict[str, list[tuple[Any, Any, Any]]] = {}
        for row, raw in zip(entry["benchmark"], samples, strict=True):
            scores = [image[:CLASSES] for image in raw["scores"][:IMAGES]]
            if len(scores) > 1 and largest_change(scores[:1], scores[1:]) < SCORE_TOLERANCE:
                why = "the scores do not depend on the image, so they cannot show a change"
                raise SystemExit(f"{name}: {why}")
            key = f"{name}, batch {row['batch_size']}, {row['isa']}"
            rounds = len(raw["samples"][0]["rounds"])
            same.setdefault(key, []).append((row, rounds, scores))
        for key, measured in same.items():
            rows = [row for row, _, _ in measured]
            used = [row for row in rows if row["stable"]] or rows
            _, rounds, scores = measured[0]
            found[key] = {
                "stable": used[0]["stable"],
                "machine": machine,
                "rounds": rounds,
                "ratios": {PADDLE: mean(used)}
                | {e: mean([row["engines"][e] for row in used]) for e in used[0]["engines"]},
                "int8_ops": entry["audit"]["int8_ops"],
                "scores": [[float(f"{score:.5g}") for score in image] for image in scores],
            }
    return found


def mean(speeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the geometric mean of ratios that were measured under the same conditions.

    Two caps can execute the same instruction set. Their rows then measure one ratio twice, and
    differ by more than their intervals: MobileNetV2 at batch 16 in the OpenVINO engine was 3.36
    and 3.21 in one run.
    """
    ratio = math.exp(sum(math.log(speed["ratio"]) for speed in speeds) / len(speeds))
    widths = [math.log(high / low) for low, high in (speed["ratio_interval"] for speed in speeds)]
    half = math.hypot(*widths) / len(widths) / 2
    interval = [round(ratio * math.exp(sign * half), 4) for sign in (-1, 1)]
    return {"ratio": round(ratio, 4), "interval": interval}


def is_same_machine(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether both rows were measured on the same kind of machine; old rows name no machine."""
    return bool(now["machine"] == then["machine"])


def worse(
    name: str, now: dict[str, Any], then: dict[str, Any], comparisons: int
) -> Iterator[Fault]:
    """Yield each loss.

    Args:
        name: name of the row.
        now: the row of this run.
        then: the recorded row.
        comparisons: number of ratios of all rows, which share ``FALSE_ALARMS``.
    """
    for engine, recorded in then["ratios"].items():
        which = name if engine == PADDLE else f"{name}, {engine}"
        if engine not in now["ratios"]:
            yield Fault(
                which, True, f"recorded {recorded['ratio']:.2f}, but the run lacks this engine"
            )
            continue
        lost = loss(now, then, engine, comparisons)
        if lost:
            again = "" if now["stable"] else "; it was disturbed, so measure again"
            yield Fault(which, lost[0], f"{lost[1]}{again}")
    if now["int8_ops"] < then["int8_ops"]:
        told = f"{now['int8_ops']} ops in INT8, recorded {then['int8_ops']}"
        yield Fault(f"{name}, ops", True, told)
    # Not recorded yet with the weights that are drawn now.
    moved = largest_change(now["scores"], then["scores"]) if then["scores"] else 0.0
    if moved > SCORE_TOLERANCE:
        limit = f"at most {SCORE_TOLERANCE:.1%}"
        told = f"scores changed by {moved:.1%} of their spread, expected {limit}"
        yield Fault(f"{name}, scores", True, told)


def loss(
    now: dict[str, Any], then: dict[str, Any], engine: str, comparisons: int
) -> tuple[bool, str] | None:
    """Judge the ratio of one engine; returns whether the loss is certain, and words; None if none.

    A ratio of the same kind of machine passes if a loss of 5% can be excluded. It is worse if some
    loss is certain but a loss of 5% cannot be excluded. Otherwise the rounds are too few or too
    unsteady to decide.
    """
    new, old = now["ratios"][engine], then["ratios"][engine]
    told = f"ratio {new['ratio']:.2f}, recorded {old['ratio']:.2f}"
    if not is_same_machine(now, then):
        least = old["ratio"] * (1 - OTHER_MACHINE_LOSS)
        return None if new["ratio"] >= least else (True, f"{told}, expected at least {least:.2f}")
    found = change(new, old, (now["rounds"], then["rounds"]))
    low, high = found.bounds(MISSED)
    if low >= -100 * LOSS:
        return None
    told += f", changed by {low:+.1f}% to {high:+.1f}%"
    if found.bounds(FALSE_ALARMS / comparisons)[1] < 0:
        return True, told
    return False, f"{told}: too imprecise to exclude a loss of {LOSS:.0%}, so measure again"


def largest_change(now: list[list[float]], then: list[list[float]]) -> float:
    """Largest difference of two sets of scores, in shares of the spread of the second."""
    values = [score for image in then for score in image]
    spread = max(values) - min(values)
    changes = (
        abs(a - b)
        for one, two in zip(now, then, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    return max(changes) / spread


def compared(now: dict[str, Any], recorded: dict[str, Any]) -> list[Fault]:
    """Print each row beside the recorded one; return what :func:`worse` found."""
    known = {name: recorded[name] for name in now if name in recorded}
    comparisons = sum(len(then["ratios"]) for then in known.values())
    found: list[Fault] = []
    for name, values in now.items():
        then = known.get(name)
        told = "not recorded for this instruction set"
        if then:
            found += worse(name, values, then, comparisons)
            told = f"recorded {then['ratios'][PADDLE]['ratio']:.2f}"
            if not is_same_machine(values, then):
                limit = f"{OTHER_MACHINE_LOSS:.0%}"
                told += f" on another kind of machine: only losses above {limit} are found"
            if not then["scores"]:
                told += "; its scores are not recorded and not compared"
        print(f"{name}: ratio {values['ratios'][PADDLE]['ratio']:.2f}, {told}")
    return found


def measure(run: Path, models: set[str]) -> None:
    """Repeat the benchmark of some networks of a finished run.

    Raises:
        CalledProcessError: a measurement failed.
    """
    names = [entry["model"] for entry in json.loads((run / "report.json").read_bytes())["matrix"]]
    job, place = (sys.executable, "-m", "job"), (str(MANIFEST), "--output", str(run))
    for name in sorted(models):
        only = ("--index", str(names.index(name)), "--from", "benchmark")
        subprocess.run((*job, "run", *place, *only), check=True)
    subprocess.run((*job, "merge", *place), check=True)


def record(now: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Add the figures of a run to the record. A disturbed ratio is no reference for later runs."""
    steady = {name: values for name, values in now.items() if values.pop("stable")}
    RECORDED.write_text(json.dumps({**recorded, **steady}, indent=1, sort_keys=True) + "\n")
    print(f"recorded {len(steady)} rows in {RECORDED}")
    for name in now.keys() - steady.keys():
        print(f"not recorded, because it is unstable: {name}")


def main(run: str, *options: str) -> int:
    """Compare or record; returns the exit code."""
    folder, recorded = Path(run), {}
    if RECORDED.exists():
        recorded = json.loads(RECORDED.read_bytes())
    if options == ("--record",):
        record(figures(folder), recorded)
        return 0
    before = None
    if options == ("--again",):
        before = [Fault(**fault) for fault in json.loads((folder / FOUND).read_bytes())]
        measure(folder, {fault.model for fault in before})
    found = compared(figures(folder), recorded)
    if before is not None:
        found = [fault for fault in found if fault.what in {each.what for each in before}]
    (folder / FOUND).write_text(json.dumps([asdict(fault) for fault in found]))
    print()
    for fault in found:
        print(f"{'WORSE' if fault.certain else 'UNDECIDED'}: {fault.what}: {fault.text}")
    if not found:
        print("nothing worse")
        return 0
    return 1 if any(fault.certain for fault in found) else 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
