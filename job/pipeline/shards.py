"""Parts of a stage's work that other machines do, each in an output of its own.

    <output>/shards/<number>/   an ordinary output with one stage, the shard's

A part is taken only if a run of it here and now would reuse it: same models, same split, same
libraries, same kind of CPU. What is not there, or is of anything else, the stage does itself.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from job.errors import DataError, UsageError
from job.manifest import Manifest
from job.pipeline.output_location import Location, open_read_only
from job.pipeline.plan import Planner, digest_of
from job.stages.stage import SHARD, Stage, StageOutput
from job.storage.local import LocalOutput, Published

FOLDER = "shards"


def roomy_folder() -> Path:
    """Return where to put what is fetched for a short while: /tmp may be small in a container."""
    folder = Path(os.environ.get("JOB_SCRATCH") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def place_of_part(output: Location, number: int) -> Location:
    """Return the output of one part."""
    return output / f"{FOLDER}/{number}"


def identity(number: int, manifest: Manifest) -> str:
    """Return what stands for the input ``SHARD`` in a part's key."""
    return f"{number} of {manifest.accuracy.shards}"


def finished_parts(
    shard: Stage, output: Location, scratch: Path, planner: Planner, digests: Mapping[str, str]
) -> dict[str, StageOutput]:
    """Return the parts that are done, by ``SHARD-NUMBER``.

    Args:
        shard: does a part.
        output: that of the whole run.
        scratch: a folder for what must be fetched.
        planner: of the whole run.
        digests: of what earlier stages left.
    """
    found = {}
    for number in range(planner.manifest.accuracy.shards):
        folder = open_read_only(place_of_part(output, number), planner.manifest, scratch)
        here = replace(planner, output=folder, forced=frozenset())
        upstream = {**digests, SHARD: identity(number, planner.manifest)}
        left = here.judge(shard, upstream).reusable
        if left is not None:
            folder.download([shard.output_dir])
            found[f"{SHARD}-{number}"] = StageOutput(left.path, left.record)
    return found


def what_it_needs(
    shard: Stage, number: int, manifest: Manifest, main: LocalOutput, output_dir: Mapping[str, str]
) -> tuple[dict[str, StageOutput], dict[str, str]]:
    """Return the inputs of a part, and their digests.

    Args:
        shard: does a part.
        number: which part.
        manifest: of the whole run.
        main: its output, only looked at.
        leaves: the folder of each stage.

    Raises:
        UsageError: there is no such part.
        DataError: the run has not come that far.
    """
    count = manifest.accuracy.shards
    if not 0 <= number < count:
        raise UsageError(
            f"--shard {number}: /accuracy/shards is {count}, so that they are 0 to {count - 1}",
            "Set accuracy.shards, for this command as for the run.",
        )
    needed = [name for name in shard.needs if name != SHARD]
    left: dict[str, Published] = {}
    for name in needed:
        published = main.published(output_dir[name])
        if published is None:
            raise DataError(
                f"{main.display_path(output_dir[name])} is not there yet, and scoring reads it",
                f"Run `job run MANIFEST --until {needed[-1]}` first, with the same output.",
            )
        left[name] = published
    main.download(output_dir[name] for name in needed)
    inputs = {name: StageOutput(each.path, each.record) for name, each in left.items()}
    inputs[SHARD] = StageOutput(main.root, {"number": number})
    digests = {name: digest_of(each) for name, each in left.items()}
    return inputs, {**digests, SHARD: identity(number, manifest)}
