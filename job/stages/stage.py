"""What a stage is."""

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
    """What a finished stage left behind.

    Attributes:
        path: the published folder.
        record: the JSON object that the stage returned.
    """

    path: Path
    record: Record


StageFunction = Callable[[Manifest, Mapping[str, StageOutput], Path, Events], Record | None]


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline, run in a process of its own.

    Attributes:
        name: the stage's name, as on the command line.
        leaves: the folder that it leaves in the output.
        needs: earlier stages whose output it reads.
        settings: the part of the manifest that can change its output.
        files: external files and folders that it reads.
        run: the work; a module-level function, imported again in the worker process. It returns
            None when it ended early because another process of its group was asked to stop.
        host_matters: whether another CPU gives another result.
        libraries: packages beyond the core whose versions can change its output.
        shard: does a part of its work on another machine. It needs ``SHARD`` besides, whose record
            has the part's ``number``; the stage finds what was done among its inputs, by name and
            number.
        beside: what other processes do while this one trains, when several train together.
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
