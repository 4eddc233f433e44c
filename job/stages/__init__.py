"""The pipeline's stages, in the order in which they run."""

from job.stages import accuracy, baseline, benchmark, convert, int8, prepare, qat
from job.stages.stage import Stage

STAGES: tuple[Stage, ...] = (
    prepare.STAGE,
    baseline.STAGE,
    qat.STAGE,
    convert.STAGE,
    int8.STAGE,
    accuracy.STAGE,
    benchmark.STAGE,
)
