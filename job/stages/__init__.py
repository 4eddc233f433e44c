"""The pipeline's stages, in the order in which they run."""

from dataclasses import replace

from job.manifest import Manifest
from job.stages import (
    accuracy,
    baseline,
    benchmark,
    calibrate,
    convert,
    int8,
    other_engines,
    paddle_openvino,
    prepare,
    qat,
)
from job.stages.engine_packages import PACKAGES, is_missing
from job.stages.stage import Stage

STAGES: tuple[Stage, ...] = (
    prepare.STAGE,
    baseline.STAGE,
    calibrate.STAGE,
    qat.STAGE,
    convert.STAGE,
    int8.STAGE,
    paddle_openvino.STAGE,
    *other_engines.STAGES,
    accuracy.STAGE,
    benchmark.STAGE,
)
# Stages that run the INT8 models of all engines.
_OF_ALL_ENGINES = (accuracy.STAGE.name, benchmark.STAGE.name)


def stages_for(manifest: Manifest) -> tuple[Stage, ...]:
    """Return the stages of a manifest, without the stages of engines that cannot run.

    These are the engines that the manifest does not list and that the installed Paddle lacks.
    """
    excluded = set(PACKAGES).difference(manifest.benchmark.engines)
    excluded |= {name for name in PACKAGES if is_missing(name)}
    stages = [stage for stage in STAGES if stage.name not in excluded]
    others = [stage for stage in stages if stage.name in PACKAGES]
    needs = tuple(stage.name for stage in others)
    libraries = tuple(name for stage in others for name in stage.libraries)

    def with_all_engines(stage: Stage) -> Stage:
        shard = with_all_engines(stage.shard) if stage.shard else None
        return replace(stage, needs=stage.needs + needs, libraries=libraries, shard=shard)

    return tuple(
        with_all_engines(stage) if stage.name in _OF_ALL_ENGINES else stage for stage in stages
    )
