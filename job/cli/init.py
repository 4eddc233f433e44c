"""``job init`` and ``job schema``: the first manifest for the user's own images."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from job.errors import DataError, UsageError
from job.uri import is_uri

if TYPE_CHECKING:
    from job.cli.found_data import FoundData
    from job.cli.times import Times
    from job.manifest import Manifest

app = typer.Typer()

_SIDES = {"inception_v3": 299, "lenet": 28, "convnet": 32}
_DEFAULT_SIDE = 224
_DETECTION_SIDE = 416
# The usual ratio of the shorter side before the centre crop and the input: 256 to 224.
_RESIZE = 256 / 224
_FEW_IMAGES = 2000


@app.command()
def schema() -> None:
    """Print the JSON schema of manifests, for editors and other tools.

    \b
    Example:
      job schema > manifest.schema.json
    """
    from job.manifest.schema import SCHEMA_FILE

    typer.echo(SCHEMA_FILE.read_text(encoding="utf-8"), nl=False)


@app.command()
def init(
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder, archive or S3 URI of the images.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Built-in network. Default: resnet18; for boxes: yolov3_mobilenet_v1.",
        ),
    ] = None,
    inference_model: Annotated[
        str | None, typer.Option(metavar="DIR", help="Saved inference model of Paddle.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights of the built-in network.")
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Write the manifest of an example: digits, detection-digits."
        ),
    ] = None,
    output: Annotated[str, typer.Option(metavar="FILE", help="Manifest to write.")] = "m.json",
) -> None:
    """Write a short manifest for a folder of images.

    The images may be in class folders (plain, or in train/, val/ and test/), or named in the lists
    train_list.txt and val_list.txt. For a data set of Pascal VOC (Annotations, ImageSets) or COCO
    (annotations/*.json), the manifest describes a detector. The data may be in a .tar, .tar.gz,
    .tgz or .zip archive. An existing file is not overwritten.

    \b
    Examples:
      job init --data photos --model resnet18 --weights resnet18.pth
      job init --data photos --inference-model export
      job init --data s3://bucket/photos
      job init --example digits
    """
    from job.api.model_checks import check_models
    from job.api.output_checks import check_output
    from job.cli.init_data import find_data
    from job.cli.init_model import check_files
    from job.cli.times import first_times
    from job.manifest import parse
    from job.manifest.schema import SCHEMA_FILE, example_file
    from job.manifest.task_rules import DETECTORS
    from job.pipeline.output_location import place_of

    _check_options(data, example, inference_model, model or weights, output)
    target = Path(output)
    found = None
    if example is not None:
        if (file := example_file(example)) is None:
            raise UsageError(
                f"--example {example}: no such example", "Use digits or detection-digits."
            )
        document = json.loads(file.read_text(encoding="utf-8"))
    else:
        found = find_data(str(data))
        document = _document(str(data), found, model, inference_model, weights, target)
        if found.class_names:
            document |= _detection(document, found, model, str(data))
        elif model in DETECTORS:
            raise UsageError(
                f"--model {model}: this network is a detector, but the data set has no objects",
                "Use a classifier such as --model resnet18, or a data set of Pascal VOC or COCO.",
            )
    document["$schema"] = SCHEMA_FILE.resolve().as_uri()
    manifest = parse(document, output, target.absolute().parent)
    check_models(manifest, output)
    check_files(inference_model, weights)
    check_output(manifest, place_of(manifest.output))
    times = first_times(manifest)
    try:
        with target.open("x", encoding="utf-8") as opened:
            opened.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UsageError(
            f"cannot write {output}: {error.strerror}", "Choose another file with --output."
        ) from error
    if found:
        _print_found(found, inference_model, output)
    if manifest.model.pretrained:
        typer.echo(
            f"The run downloads the ImageNet weights of {manifest.model.name}. Without internet "
            "access, give the file with --weights."
        )
    _print_next(manifest, output, times)


def _check_options(
    data: str | None,
    example: str | None,
    inference_model: str | None,
    built_in: str | None,
    output: str,
) -> None:
    """Check which options are given together, and that the manifest can be created.

    Raises:
        UsageError: options contradict each other, or the folder of ``output`` does not exist.
    """
    if (data is None) == (example is None):
        found = "neither" if data is None else "both"
        raise UsageError(
            f"expected exactly one of --data and --example, found {found}", "Run `job init --help`."
        )
    if data is not None and inference_model and built_in:
        raise UsageError(
            "--inference-model cannot be combined with --model or --weights, because the saved "
            "model contains network and weights",
            "Omit --model and --weights.",
        )
    if not (folder := Path(output).parent).is_dir():
        raise UsageError(
            f"--output {output}: the folder {folder} does not exist",
            "Create the folder, or choose another file with --output.",
        )


def _print_found(found: "FoundData", inference_model: str | None, output: str) -> None:
    """Print what the data set contains, and which values of the manifest to check."""
    from job.cli.init_model import assumed_keys

    typer.echo(f"Found {found.images:,} images in {found.classes:,} classes.")
    if found.unused:
        typer.echo(f"Not used, because a split has one list: {', '.join(found.unused)}")
    if found.class_names and not inference_model:
        # The default anchors are fitted to COCO.
        typer.echo(f"Print anchors for /detection/anchors: job anchors {shlex.quote(output)}")
    if not inference_model or is_uri(inference_model) or found.class_names:
        return
    if keys := assumed_keys(Path(inference_model)):
        typer.echo(
            f"Check {', '.join(keys)} in the manifest: the export does not contain these values, "
            "so the usual values of ImageNet are used."
        )


def _print_next(manifest: "Manifest", output: str, times: "Times") -> None:
    """Print the commands for the written manifest, with an estimate of the time."""
    from job.cli.plan import time_text
    from job.host import read_host

    slow = "" if read_host().has_vnni else " --allow-slow-isa"
    quoted = shlex.quote(output)
    typer.echo(f"Wrote {output}. Time of a run: {time_text(times.total)}. {times.basis}")
    typer.echo(f"Show the plan: job run {quoted} --dry-run --probe")
    typer.echo(f"Run: job run {quoted}{slow}")
    typer.echo(f"Result: {manifest.output}/report.html")


def _relative(path: str, base: Path) -> str:
    """Return a path relative to the manifest's folder; S3 URIs are unchanged."""
    return path if is_uri(path) else os.path.relpath(path, base)


def _name_of(data: str) -> str:
    """Return a name for the data, which is also the name of the output folder."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(data).absolute().name)
    return f"job-{name}".strip("-")[:100]


def _fine_tuning(images: int) -> dict[str, Any]:
    """Return the settings of a training that starts from weights for other classes."""
    settings: dict[str, Any] = {"epochs": 5, "base_lr": 0.005}
    # With the default batch size, few images would give only a few steps.
    return settings | ({"batch_size": 16} if images < _FEW_IMAGES else {})


def _document(
    data: str,
    found: "FoundData",
    model: str | None,
    inference_model: str | None,
    weights: str | None,
    target: Path,
) -> dict[str, Any]:
    """Return the manifest; paths are relative to its folder."""
    from job.cli import init_model
    from job.manifest.rules import UNPUBLISHED

    base = target.absolute().parent
    shape = [3, *[_DETECTION_SIDE if found.class_names else _DEFAULT_SIDE] * 2]
    preprocessing: dict[str, Any] = {}
    network: dict[str, Any]
    baseline: dict[str, Any] = {}
    if inference_model:
        export = Path(inference_model)
        init_model.check_order(export, found.folders)
        network = {"inference_model": _relative(inference_model, base)}
        shape = init_model.exported_shape(export) or init_model.preprocessed_shape(export) or shape
        preprocessing = init_model.preprocessing_of(export)
    else:
        network = {"name": model or "resnet18"}
        side = _SIDES.get(network["name"], _DEFAULT_SIDE)
        shape = [1 if network["name"] == "lenet" else 3, side, side]
        if weights:
            network["weights"] = _relative(weights, base)
            if not init_model.has_classes(Path(weights), found.classes):
                network["reset_classifier"] = True
                baseline = {"train": _fine_tuning(found.images)}
        elif network["name"] in UNPUBLISHED:
            baseline = {"train": {"epochs": 30, "base_lr": 0.05}}
        else:
            network |= {"pretrained": True, "reset_classifier": True}
            baseline = {"train": _fine_tuning(found.images)}
    network |= {"classes": found.classes, "input_shape": shape}
    if shape[0] == 1:
        preprocessing |= {"mean": [0.5], "std": [0.5]}
    if "resize_short" not in preprocessing and shape[1] >= _DEFAULT_SIDE:
        preprocessing["resize_short"] = round(max(shape[1:]) * _RESIZE)
    keys = {"format": found.keys["format"], "root": _relative(data, base), **found.keys}
    document: dict[str, Any] = {"$schema": "", "version": 1, "name": _name_of(data)}
    document |= {"model": network, "data": keys | preprocessing}
    return document | ({"baseline": baseline} if baseline else {})


def _detection(
    document: dict[str, Any], found: "FoundData", model: str | None, data: str
) -> dict[str, Any]:
    """Return the keys that differ for a detector.

    Raises:
        UsageError: the model is a classifier.
        DataError: there are no training images, but a built-in network needs training.
    """
    from job.manifest.task_rules import DETECTORS

    given = document["model"]
    name = {} if "inference_model" in given else {"name": model or DETECTORS[0]}
    if name and name["name"] not in DETECTORS:
        raise UsageError(
            f"--model {model}: the data set has objects, but this network is a classifier",
            f"Use --model {DETECTORS[0]}, or omit the option.",
        )
    if name and "train_list" not in found.keys:
        raise DataError(
            f"--data {data}: found no list of training images",
            "Add the image set ImageSets/Main/trainval.txt with one image name per line.",
        )
    weights = {key: given[key] for key in ("weights", "inference_model") if key in given}
    rate = 0.001 if "weights" in given else 0.006
    steps = {"max_iters": 3000, "batch_size": 8, "optimizer": "adam", "base_lr": rate}
    schedule = {"type": "cosine", "warmup_fraction": 0.05}
    train = {**steps, "weight_decay": 0, "schedule": schedule}
    section = {key: value for key, value in document["data"].items() if key != "resize_short"}
    shape = [3, _DETECTION_SIDE, _DETECTION_SIDE] if name else given["input_shape"]
    return {
        "task": "detection",
        "model": {
            **name,
            **weights,
            "classes": found.classes,
            "input_shape": shape,
        },
        "data": section,
        "detection": {"class_names": list(found.class_names)},
        "baseline": {"train": {"epochs": 0} if "inference_model" in given else train},
    }
