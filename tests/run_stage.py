"""Run one stage of a run in this process, so that a debugger can step into it.

    python tests/run_stage.py MANIFEST STAGE [FOLDER]
    python -m pdb tests/run_stage.py MANIFEST STAGE [FOLDER]

The stage reads the published output of the stages that it needs, so run these first, for example
with `job run MANIFEST --until STAGE`. It writes to FOLDER, by default a temporary folder that is
kept. Nothing is published, and the run stays as it is.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from job.host import usable_cores
from job.manifest import load
from job.process.environment import environment
from job.stages import stages_for
from job.stages.stage import StageOutput
from job.storage.local import LocalOutput


class PrintedEvents:
    """Prints progress and messages; implements :class:`job.events.Events`."""

    stopping = False

    def progress(self, what: str, done: int, total: int, unit: str, note: str = "") -> None:
        print(f"{what}: {done}/{total} {unit} {note}".rstrip(), file=sys.stderr)

    def message(self, text: str, level: str = "info") -> None:
        print(f"{level}: {text}", file=sys.stderr)


def read_inputs(output: LocalOutput, folders: Mapping[str, str]) -> dict[str, StageOutput]:
    """Return the published output of each stage, by stage name.

    Args:
        output: the output folder of the run.
        folders: the folder of each stage in it, by stage name.
    """
    inputs = {}
    for name, folder in folders.items():
        published = output.published(folder)
        if published is None:
            sys.exit(f"{output.root / folder} has no {name} output; run `job run --until {name}`")
        inputs[name] = StageOutput(published.path, published.record)
    return inputs


def main() -> None:
    """Run the stage and print its record."""
    source, name, *folder = sys.argv[1:]
    manifest = load(source)
    stages = {stage.name: stage for stage in stages_for(manifest)}
    needs = {needed: stages[needed].output_dir for needed in stages[name].needs}
    inputs = read_inputs(LocalOutput(Path(manifest.output)), needs)
    # Stages import Paddle inside `run`, so the variables that it reads can still be set here.
    os.environ.update(environment(usable_cores()))
    out = Path(folder[0] if folder else tempfile.mkdtemp(prefix="job-stage-")).absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(stages[name].run(manifest, inputs, out, PrintedEvents()))
    print(f"files: {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
