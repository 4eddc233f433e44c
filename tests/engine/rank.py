"""One process of a data-parallel training: rank.py RANK SIZE PORT FOLDER NAME SETTINGS.

``FOLDER/fp32`` holds the baseline. Rank 0 trains into ``FOLDER/NAME``. The other ranks write their
state to this folder.
"""

import json
import sys
from pathlib import Path

import tiny

from job.engine.training import checkpoints, follower, programs
from job.engine.training.schedule import Schedule


def main() -> None:
    rank, size, port, folder, name, options = sys.argv[1:]
    settings = json.loads(options)
    meeting = (int(rank), int(size), "127.0.0.1", int(port))
    out = Path(folder, name)
    stop_after = settings.pop("stop_after", None)
    changes = {"max_iters": 6, "checkpoint_seconds": 0.0, **settings}
    news = tiny.News(stop_after=stop_after if rank == "0" else None)
    if rank == "0":
        fp32 = tiny.Trained(Path(folder, "fp32"), {}, None)  # type: ignore[arg-type]
        tiny.train_qat(fp32, out, news, freeze=True, meeting=meeting, **changes)
        return
    changes.pop("pact", None)
    recipe = tiny.recipe(schedule=Schedule("constant", 1e-3, (), 0.1, 0.0), **changes)
    loader = tiny.Batches(shift=1 if name == "other-labels" else 0)
    scope = follower.follow(meeting, recipe, loader=loader, events=news)
    if scope is not None:
        names = set(scope.local_var_names()) - {"feed", "fetch"}
        values = programs.read_variables(scope, sorted(names))
        checkpoints.write_arrays(out / f"rank{rank}.npz", values)


if __name__ == "__main__":
    main()
