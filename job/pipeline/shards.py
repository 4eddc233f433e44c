"""Parts (shards) of the accuracy stage. Other machines compute them, each in its own output.

    <output>/shards/<number>/   an output with one stage, which computes this part

A part is reused only if its cache key equals the key on this machine: same models, same split,
same libraries, same kind of CPU. The stage computes all missing parts.
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
    """Return the folder for large temporary files: JOB_SCRATCH, or the temporary folder if unset.

    JOB_SCRATCH exists because /tmp may be small in a container.
    """
    folder = Path(os.environ.get("JOB_SCRATCH") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def place_of_part(output: Location, number: int) -> Location:
    """Return the output of one part."""
    return output / f"{FOLDER}/{number}"


def identity(number: int, manifest: Manifest) -> str:
    """Return the digest of the input ``SHARD`` in a part's cache key."""
    return f"{number} of {manifest.accuracy.shards}"


def finished_parts(
    shard: Stage, output: Location, scratch: Path, planner: Planner, digests: Mapping[str, str]
) -> dict[str, StageOutput]:
    """Return the outputs of the finished parts, by ``SHARD-NUMBER``.

    Args:
        shard: the stage that computes a part.
        output: the output of the whole run.
        scratch: a folder for downloads.
        planner: the planner of the whole run.
        digests: output digests of the earlier stages.
    """
    parts = {}
    for number in range(planner.manifest.accuracy.shards):
        folder = open_read_only(place_of_part(output, number), planner.manifest, scratch)
        part_planner = replace(planner, output=folder, forced=frozenset())
        upstream = {**digests, SHARD: identity(number, planner.manifest)}
        published = part_planner.judge(shard, upstream).reusable
        if published is not None:
            folder.download([shard.output_dir])
            parts[f"{SHARD}-{number}"] = StageOutput(published.path, published.record)
    return parts


def what_it_needs(
    shard: Stage,
    number: int,
    manifest: Manifest,
    whole_run: LocalOutput,
    output_dirs: Mapping[str, str],
) -> tuple[dict[str, StageOutput], dict[str, str]]:
    """Return the inputs of a part, and their digests.

    Args:
        shard: the stage that computes a part.
        number: the part, from 0.
        manifest: the manifest of the whole run.
        whole_run: the output of the whole run, opened for reading.
        output_dirs: the output folder of each stage, by stage name.

    Raises:
        UsageError: the part does not exist.
        DataError: the whole run has not finished a stage that the part reads.
    """
    count = manifest.accuracy.shards
    if not 0 <= number < count:
        raise UsageError(
            f"--shard {number}: expected 0{f' to {count - 1}' if count > 1 else ''}, because "
            f"/accuracy/shards is {count}",
            "Set accuracy.shards to the same number for `job score` and `job run`.",
        )
    needed = [name for name in shard.needs if name != SHARD]
    results: dict[str, Published] = {}
    for name in needed:
        published = whole_run.published(output_dirs[name])
        if published is None:
            raise DataError(
                f"{whole_run.display_path(output_dirs[name])} is missing; scoring reads it",
                f"Run `job run MANIFEST --until {needed[-1]}` first, with the same output.",
            )
        results[name] = published
    whole_run.download(output_dirs[name] for name in needed)
    inputs = {name: StageOutput(each.path, each.record) for name, each in results.items()}
    inputs[SHARD] = StageOutput(whole_run.root, {"number": number})
    digests = {name: digest_of(each) for name, each in results.items()}
    return inputs, {**digests, SHARD: identity(number, manifest)}
