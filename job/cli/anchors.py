"""``job anchors``: anchors that fit the boxes of a data set."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from job.cli.options import ManifestArgument, Overrides
from job.errors import UsageError

app = typer.Typer()


@app.command()
def anchors(
    manifest: ManifestArgument,
    count: Annotated[
        int, typer.Option("--count", min=3, max=60, help="Number of anchors, a multiple of 3.")
    ] = 9,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of k-means.")] = 0,
    overrides: Overrides = None,
) -> None:
    """Print anchors for the training images of a manifest, by k-means.

    The distance of a box and an anchor is 1 - IoU. The anchors are in pixels of the network's
    input, and the smallest belong to the head of stride 8. The line can be pasted into the section
    `detection` of the manifest.

    \b
    Examples:
      job anchors m.json
      job anchors m.json --count 6 --set 'model.input_shape=[3,320,320]'
    """
    from job.data.anchor_fit import fitted_anchors
    from job.manifest import entries, load
    from job.pipeline.fetch_inputs import localized
    from job.stages.dataset import open_splits
    from job.tasks.detection import STRIDES

    heads = len(STRIDES)
    if count % heads:
        raise UsageError(f"--count {count}: expected a multiple of {heads}", "Use --count 9.")
    loaded = load(manifest, overrides or ())
    if entries(loaded) or loaded.task != "detection":
        given = "a matrix" if entries(loaded) else f"task {loaded.task}"
        raise UsageError(
            f"{manifest}: expected one model with task detection, found {given}",
            "Use the manifest of a detector without a matrix.",
        )
    with localized(loaded, _note) as local, tempfile.TemporaryDirectory() as folder:
        splits = open_splits(local, Path(folder, "output", "prepare"))
        size = (local.model.input_shape[1], local.model.input_shape[2])
        found = fitted_anchors(splits.train, size, count, seed, heads)
    typer.echo(f'"anchors": {json.dumps(found.heads)}')
    by_head = zip(STRIDES, found.shares, strict=True)
    _note(f"{found.boxes:,} boxes; mean IoU with the best anchor: {found.mean_iou:.3f}")
    _note(
        "Boxes of each head: "
        + ", ".join(f"stride {stride} {100 * share:.0f}%" for stride, share in by_head)
    )


def _note(text: str) -> None:
    typer.echo(text, err=True)
