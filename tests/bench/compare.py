"""Whether INT8 is as fast and as right as it was: a run of manifest.json against recorded.json.

python tests/bench/compare.py RUN            compare, exit code 1 if anything got worse
python tests/bench/compare.py RUN --record   keep this run's figures as the ones to hold

Ratios and scores are kept by the instruction set that really ran, so one file serves machines of
every kind; on a kind without figures nothing is compared, and this is said.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded.json")
# A ratio may fall this far below the recorded one: machines of one kind differ by less.
RATIO_TOLERANCE = 0.15
# Largest change of a score, in shares of the scores' spread; rounding of sums moves them by less,
# and another image by more.
SCORE_TOLERANCE = 0.005
IMAGES, CLASSES = 2, 64


def figures(run: Path) -> dict[str, dict[str, Any]]:
    """What is recorded of a finished run: name -> ratio, INT8 ops, scores; and if it is stable.

    Where two caps came to the same instruction set, the ratio counts that is known better.
    """
    found: dict[str, dict[str, Any]] = {}
    width: dict[str, float] = {}
    for entry in json.loads((run / "report.json").read_bytes())["matrix"]:
        name = entry["model"]
        if entry["error"]:
            raise SystemExit(f"{name}: {entry['error']['message']}")
        samples = json.loads((run / name / "benchmark" / "samples.json").read_bytes())
        for row, raw in zip(entry["benchmark"], samples, strict=True):
            scores = [image[:CLASSES] for image in raw["scores"][:IMAGES]]
            if len(scores) > 1 and largest_change(scores[:1], scores[1:]) < SCORE_TOLERANCE:
                raise SystemExit(f"{name}: scores do not depend on the image, and tell nothing")
            key = f"{name}, batch {row['batch_size']}, {row['isa']}"
            low, high = row["ratio_interval"]
            if high / low >= width.get(key, float("inf")):
                continue
            width[key] = high / low
            found[key] = {
                "stable": row["stable"],
                "ratio": round(row["ratio"], 3),
                "engines": {name: round(e["ratio"], 3) for name, e in row["engines"].items()},
                "int8_ops": entry["audit"]["int8_ops"],
                "scores": [[float(f"{score:.5g}") for score in image] for image in scores],
            }
    return found


def worse(name: str, now: dict[str, Any], then: dict[str, Any]) -> Iterator[str]:
    """What got worse, in words."""
    ratios = {name: now["ratio"]}
    recorded = {name: then["ratio"]}
    # Figures that were recorded before the run built models for other engines have none.
    for engine, ratio in then.get("engines", {}).items():
        recorded[f"{name}, {engine}"] = ratio
        ratios[f"{name}, {engine}"] = now["engines"].get(engine, 0.0)
    for which, ratio in ratios.items():
        least = recorded[which] * (1 - RATIO_TOLERANCE)
        if ratio < least:
            again = "" if now["stable"] else "; it was disturbed, so measure again"
            told = f"ratio {ratio:.2f}, recorded {recorded[which]:.2f}, least {least:.2f}"
            yield f"{which}: {told}{again}"
    if now["int8_ops"] < then["int8_ops"]:
        yield f"{name}: {now['int8_ops']} ops in INT8, recorded {then['int8_ops']}"
    # Not recorded yet with the weights that are drawn now.
    change = largest_change(now["scores"], then["scores"]) if then["scores"] else 0.0
    if change > SCORE_TOLERANCE:
        yield f"{name}: scores moved by {change:.1%} of their spread, at most {SCORE_TOLERANCE:.1%}"


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


def main(run: str, *options: str) -> int:
    """Compare or record; returns the exit code."""
    now = figures(Path(run))
    recorded = json.loads(RECORDED.read_bytes()) if RECORDED.exists() else {}
    if options == ("--record",):
        # A disturbed ratio is nothing to hold others to.
        steady = {name: values for name, values in now.items() if values.pop("stable")}
        RECORDED.write_text(json.dumps({**recorded, **steady}, indent=1, sort_keys=True) + "\n")
        print(f"recorded {len(steady)} rows in {RECORDED}")
        for name in now.keys() - steady.keys():
            print(f"not recorded, as unstable: {name}")
        return 0
    faults = []
    for name, values in now.items():
        then = recorded.get(name)
        faults += worse(name, values, then) if then else []
        told = f"recorded {then['ratio']:.2f}" if then else "not recorded for this instruction set"
        if then and not then["scores"]:
            told += "; its scores are not recorded and not compared"
        print(f"{name}: ratio {values['ratio']:.2f}, {told}")
    print(
        "\n".join(["", *(f"WORSE: {fault}" for fault in faults)] if faults else ["nothing worse"])
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
