"""The pipeline's stages, in the order in which they run."""

from dataclasses import replace

from job.manifest import Manifest
from job.stages import accuracy, baseline, benchmark, convert, int8, other_engines, prepare, qat
from job.stages.engine_packages import PACKAGES
from job.stages.stage import Stage

STAGES: tuple[Stage, ...] = (
    prepare.STAGE,
    baseline.STAGE,
    qat.STAGE,
    convert.STAGE,
    int8.STAGE,
    *other_engines.STAGES,
    accuracy.STAGE,
    benchmark.STAGE,
)
# They run the INT8 models of every engine.
_OF_ALL_ENGINES = (accuracy.STAGE.name, benchmark.STAGE.name)


def stages_for(manifest: Manifest) -> tuple[Stage, ...]:
    """The stages of one manifest: of the engines besides Paddle, those that it asks for."""
    left_out = set(PACKAGES).difference(manifest.benchmark.engines)
    stages = [stage for stage in STAGES if stage.name not in left_out]
    others = [stage for stage in stages if stage.name in PACKAGES]
    needs = tuple(stage.name for stage in others)
    libraries = tuple(name for stage in others for name in stage.libraries)

    def of_all(stage: Stage) -> Stage:
        shard = of_all(stage.shard) if stage.shard else None
        return replace(stage, needs=stage.needs + needs, libraries=libraries, shard=shard)

    return tuple(of_all(stage) if stage.name in _OF_ALL_ENGINES else stage for stage in stages)
