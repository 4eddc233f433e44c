"""Switches off each head of a trained detector, and prints the mAP on the test images.

    python tests/switch_off_heads.py runs/detection-digits

The saved FP32 model and the INT8 model are scored as in stage accuracy. A head that is switched off
finds no object. A head that costs no mAP is idle: the objects belong to the anchors of other heads.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from job.detection.annotations import Annotations
from job.tasks.task import Outputs, Scored, Task

BATCH = 50
# The sigmoid of this value is 0 for all purposes.
NOTHING = -50.0


def map_without(
    task: Task, outputs: Outputs, objects: Sequence[Annotations], head: int | None
) -> float:
    """Return the mAP in percent after switching off a head.

    Args:
        task: the task of the detector.
        outputs: output of each head for all images, float32 ``[N, anchors * (5 + classes), H, W]``.
        objects: the objects of each image.
        head: number of the head in the order of the outputs; None switches off no head.
    """
    left = tuple(
        np.full_like(each, NOTHING) if number == head else each
        for number, each in enumerate(outputs)
    )
    found = task.evaluate([Scored(left, objects, None)])[task.primary.key]
    assert found is not None
    return found


def main() -> None:
    """Print a row for each model."""
    # Importing job.engine before Paddle makes Paddle build programs of the legacy format.
    from job.data import packed_objects
    from job.data.packed import open_packed
    from job.engine.inference import predictor
    from job.manifest.load import load
    from job.stages.task import task_of

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of a finished run")
    folder = parser.parse_args().run
    manifest = load(str(folder / "manifest.json"))
    task, test = task_of(manifest), folder / "data/test.bin"
    images = open_packed(test, manifest.model.input_shape).images
    objects = packed_objects.read(test)
    names = [f"without stride {head.stride}" for head in task.heads]
    print(f"| model | all heads | {' | '.join(names)} |")
    print(f"| --- |{' ---: |' * (1 + len(names))}")
    for name, mode in (("fp32", predictor.ONEDNN), ("int8", predictor.INT8)):
        model = predictor.Predictor(
            predictor.configuration(folder / name / "model", mode, threads=1)
        )
        parts = [found for _, found in predictor.score_all(model, images, BATCH)]
        outputs = tuple(np.concatenate(each) for each in zip(*parts, strict=True))
        values = [
            map_without(task, outputs, objects, head) for head in (None, *range(len(task.heads)))
        ]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |", flush=True)


if __name__ == "__main__":
    main()
