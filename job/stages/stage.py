"""The dataclass that describes a stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.events import Events
from job.manifest import Manifest

Record = Mapping[str, Any]
SHARD = "shard"
# Files of stage `prepare`: images that are preprocessed, in the packed format.
SELECTION, CALIBRATION, TEST = "selection.bin", "calibration.bin", "test.bin"


@dataclass(frozen=True)
class StageOutput:
    """Output of a finished stage.

    Attributes:
        path: the published folder.
        record: the JSON object that the stage returned.
    """

    path: Path
    record: Record


StageFunction = Callable[[Manifest, Mapping[str, StageOutput], Path, Events], Record | None]


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline. Each stage runs in its own process.

    Attributes:
        name: the stage's name on the command line.
        output_dir: the stage's folder in the output.
        needs: earlier stages whose output the stage reads.
        settings: returns the part of the manifest that can change the stage's output.
        files: returns the external files and folders that the stage reads.
        run: a module-level function, which the stage's process imports by name. The function
            returns None if it stopped before its work was done.
        host_matters: whether the result depends on the CPU.
        libraries: packages beyond the core whose versions can change the output.
        shard: stage that computes one part of the work on another machine. Its input ``SHARD`` has
            a record with the ``number`` of the part. The results are inputs of this stage, named
            ``SHARD``-``number``.
        follower_stage: stage that the other ranks run while this stage trains in a process group.
        early_check: returns a function that finds mistakes in the stage's inputs before any stage
            runs, or None if nothing is gained. It runs in its own process, without inputs.
    """

    name: str
    output_dir: str
    needs: tuple[str, ...]
    settings: Callable[[Manifest], Mapping[str, Any]]
    files: Callable[[Manifest], Sequence[Path]]
    run: StageFunction
    host_matters: bool = False
    libraries: tuple[str, ...] = ()
    shard: "Stage | None" = None
    follower_stage: "Stage | None" = None
    early_check: Callable[[Manifest], StageFunction | None] = lambda _: None
