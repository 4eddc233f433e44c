"""Estimates the times of a plan's stages."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.errors import DataError, UsageError
from job.host import read_host
from job.manifest import Manifest
from job.manifest.spec import DataSpec
from job.pipeline.estimate import Estimate, estimates, rough_speeds, total_of
from job.pipeline.plan import REPORT, PlannedStage
from job.pipeline.probe import probe
from job.pipeline.workload import Images, count_images, uncounted
from job.stages import stages_for
from job.text_format import plural

# Share of the cores that other processes may use during a measurement.
_BUSY = 0.5
# The numbers of images; or None, and why they are unknown.
Counted = tuple[Images | None, str]


@dataclass(frozen=True)
class Times:
    """Estimated times.

    Attributes:
        stages: the estimate of each stage that runs, by name.
        measured: whether the speeds were measured on this machine.
        cores: number of cores of this machine.
        load: average number of busy processes before the speeds were measured.
    """

    stages: Mapping[str, Estimate]
    measured: bool
    cores: int
    load: float = 0.0

    @property
    def total(self) -> Estimate:
        """The time of all stages that run."""
        return total_of(tuple(self.stages.values()))

    @property
    def basis(self) -> str:
        """How the times were estimated, in one or two sentences."""
        cores = plural(self.cores, "core")
        if self.measured:
            text = f"Speeds were measured on this machine ({cores})."
            if self.load > _BUSY * self.cores:
                text += (
                    f" Other processes used the cores (load {self.load:.1f}), so the times can be "
                    "too long."
                )
            return text
        return (
            f"The estimate assumes {cores} of typical speed, so it can be wrong by a factor of 3. "
            "`job run MANIFEST --dry-run --probe` measures this machine."
        )


def first_times(manifest: Manifest) -> Times:
    """Estimate the time of a run without earlier results.

    Args:
        manifest: a manifest of one model.

    Raises:
        DataError: the data set is malformed, or too small for its splits.
    """
    host = read_host()
    why = uncounted(manifest)
    images = None if why else count_images(manifest)
    found = estimates(manifest, images, rough_speeds(manifest, host), host, why=why)
    names = [*(stage.name for stage in stages_for(manifest)), REPORT]
    stages = {name: found[name] for name in names if name in found}
    return Times(stages, measured=False, cores=host.usable_cores)


def _counted(manifest: Manifest) -> Counted:
    """Return the numbers of images, or why they are unknown."""
    try:
        return count_images(manifest), ""
    except (DataError, UsageError) as error:
        return None, error.message


def times_of(
    manifest: Manifest,
    planned: Sequence[PlannedStage],
    measure: bool,
    counted: dict[DataSpec, Counted] | None = None,
) -> Times:
    """Estimate the time of each stage of a plan that runs.

    Args:
        manifest: a manifest of one model.
        planned: its plan.
        measure: measure the speeds on this machine, which takes some seconds.
        counted: the images of data sets that were counted before; receives the images of this
            data set. The models of a matrix often have the same data set.

    Raises:
        JobError: the speeds cannot be measured.
    """
    host = read_host()
    running = [stage.name for stage in planned if stage.action == "run"]
    images, why = None, ""
    if any(stage.missing for stage in planned):
        why = "inputs are missing"
    elif running:
        known = {} if counted is None else counted
        if manifest.data not in known:
            known[manifest.data] = _counted(manifest)
        images, why = known[manifest.data]
    load = os.getloadavg()[0]
    speeds = probe(manifest, host) if measure and running else rough_speeds(manifest, host)
    found = estimates(manifest, images, speeds, host, why=why)
    stages = {name: found[name] for name in running if name in found}
    return Times(stages, speeds.measured, host.usable_cores, load)
