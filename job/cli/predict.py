"""``job pack`` and ``job predict``: pack the test split, and run a model on the packed file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from job.cli.options import JsonOption, ManifestArgument, Overrides
from job.text_format import plural

if TYPE_CHECKING:
    from job.predict.images import AnyAnswer
    from job.ui.protocol import Ui

app = typer.Typer()
# Names of the kinds of a saved model, see job.engine.inference.saved_model.
KINDS: Mapping[str, str] = {
    "fp32": "FP32",
    "fake_quantized": "Fake-quantized",
    "int8": "INT8",
    "paddle_openvino": "INT8 (OpenVINO in Paddle)",
}
# Lowest score of an object that is printed; JSON has all.
_SHOWN_SCORE = 0.3
# Parameters of `job predict` that only a measurement on a packed file uses.
MEASURING = (
    "repeat",
    "warmup_size",
    "batch_size",
    "iterations",
    "num_threads",
    "with_accuracy_layer",
    "profile",
    "skip_batch_num",
)


@app.command()
def pack(
    manifest: ManifestArgument,
    overrides: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File to write. Default: NAME-test.bin."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the test split to one binary file (packed format).

    The file contains the number of images (int64), the preprocessed images (float32) and their
    labels (int64). FILE.json describes it: shape, transform, checksum.

    \b
    Examples:
      job pack manifests/digits.json
      job pack manifests/resnet50-imagenet.json --set data.workers=4 --output full_val.bin
    """
    from job.manifest import load
    from job.pipeline.fetch_inputs import localized
    from job.pipeline.output_location import on_this_machine
    from job.predict.pack import pack_test_split
    from job.ui.protocol import StageEvents

    loaded = load(manifest, overrides or ())
    path = on_this_machine(output or f"{loaded.name}-test.bin", "--output")
    with _display() as ui, localized(loaded, StageEvents(ui, "inputs").message) as ready:
        written = {"file": str(path), **pack_test_split(ready, path, ui)}
    if as_json:
        typer.echo(json.dumps(written, indent=2))
        return
    shape = "x".join(map(str, written["shape"]))
    typer.echo(f"{path}: {written['count']:,} images of {shape}, {written['bytes']:,} bytes")
    typer.echo(f"{path}.json: {written['transform']}; sha256 {written['sha256']}")


@app.command()
def predict(
    context: typer.Context,
    infer_model: Annotated[
        Path,
        typer.Option(
            "--infer-model",
            "--infer_model",
            metavar="DIR_OR_PREFIX",
            help="Saved model: a folder such as fp32, qat_fake or int8 of a run, or a path without "
            "suffix. Models of Paddle 3 (.json) are accepted.",
        ),
    ],
    infer_data: Annotated[
        Path | None,
        typer.Option(
            "--infer-data", "--infer_data", metavar="FILE", help="Packed file, see `job pack`."
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|-",
            help="Run the model on an image file, the images of a folder, or standard input. The "
            "model's folder must contain deploy.json.",
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="With --image: also print the answer of FP32.")
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Number of timed calls for each batch.")] = 1,
    warmup_size: Annotated[
        int,
        typer.Option(
            "--warmup-size", "--warmup_size", min=0, help="Number of untimed batches at the start."
        ),
    ] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "--batch_size", min=1, help="Images per batch.")
    ] = 50,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Number of batches to run.  [default: all]")
    ] = None,
    num_threads: Annotated[
        int,
        typer.Option(
            "--num-threads",
            "--num_threads",
            min=1,
            help="Number of threads, each pinned to its own core.",
        ),
    ] = 1,
    with_accuracy_layer: Annotated[
        bool | None,
        typer.Option(
            "--with-accuracy-layer/--no-with-accuracy-layer",
            "--with_accuracy_layer/--nowith_accuracy_layer",
            help="Whether the model has a label input and accuracy outputs.  [default: detected]",
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also print the oneDNN primitives of one call.")
    ] = False,
    skip_batch_num: Annotated[
        int,
        typer.Option(
            "--skip-batch-num",
            "--skip_batch_num",
            min=0,
            help="Number of batches at the start that count for accuracy, but not for speed.",
        ),
    ] = 0,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON: an object, or with --image an array of images."),
    ] = False,
) -> None:
    """Run a saved model on images or on a packed file.

    --image prints the label and the probability of each image, or the objects that a detector
    found. deploy.json in the model's folder gives the transform, the class names and the fastest
    settings. The options from --repeat to --skip-batch-num and --profile need --infer-data.

    With --infer-data, the command measures a saved FP32, fake-quantized or INT8 model.

    Accuracy counts every image once. Speed is the time of whole calls, from the images to the
    scores. A smaller last batch is not timed.

    \b
    Examples:
      job predict --infer-model runs/digits/int8 --image cat.jpg --compare
      job pack manifests/digits.json
      job predict --infer-model runs/digits/int8 --infer-data digits-test.bin
      job predict --infer-model runs/digits/fp32 --infer-data digits-test.bin --batch-size 1 --json
    """
    from job.errors import UsageError

    _check_local(infer_model, infer_data, image)
    if (image is None) == (infer_data is None):
        raise UsageError(
            "expected exactly one of --image and --infer-data",
            "Set --image to run the model on images, or --infer-data to measure on a packed file.",
        )
    if image is not None:
        _refuse(context, MEASURING, "--infer-data")
        _classify(infer_model, image, compare, as_json)
        return
    _refuse(context, ("compare",), "--image")
    assert infer_data is not None  # noqa: S101 - one of both options is set
    from job.predict import runner

    trial = runner.Trial(
        infer_model=infer_model,
        infer_data=infer_data,
        repeat=repeat,
        warmup_size=warmup_size,
        batch_size=batch_size,
        iterations=iterations,
        num_threads=num_threads,
        with_accuracy_layer=with_accuracy_layer,
        skip_batch_num=skip_batch_num,
    )
    with _display() as ui:
        result = runner.predict(trial, ui)
        if profile:
            result["primitives"] = runner.profile(trial, ui)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        _print(result)


def _refuse(context: typer.Context, names: Sequence[str], needed: str) -> None:
    """Check that no option of the other kind of input is on the command line.

    Args:
        context: the command's context.
        names: parameters that the given input does not use.
        needed: the option that they need.

    Raises:
        UsageError: an option would have no effect.
    """
    from job.errors import UsageError

    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} needs {needed}", f"Set {needed}, or omit {option}.")


def _check_local(*options: Path | str | None) -> None:
    """Check that model and data are on this machine.

    Raises:
        UsageError: an option is a URI.
    """
    from job.errors import UsageError
    from job.uri import is_uri

    for value in map(str, options):
        if is_uri(value):
            # A Path contains only one of the two slashes.
            uri = value if "://" in value else value.replace(":/", "://", 1)
            raise UsageError(
                f"{uri}: expected a path on this machine, found a URI",
                "Download the run first: job fetch S3URI DIR.",
            )


def _classify(model: Path, image: str, compare: bool, as_json: bool) -> None:
    """Print the label and the probability of each image, or the objects of a detector.

    Raises:
        typer.Exit: some images cannot be read; the exit code is 4.
    """
    from dataclasses import asdict

    from job.errors import DataError
    from job.predict.deployed import folder_of
    from job.predict.images import classify

    with _display() as ui:
        results = classify(folder_of(model), image, ui, compare=compare)
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results], indent=2))
    for result in results:
        if result.answer is None:
            typer.echo(f"error: {result.image}: {result.error}", err=True)
        elif not as_json:
            texts = [_answer_text(result.answer)]
            if result.fp32 is not None:
                texts.append(f"FP32: {_answer_text(result.fp32)}")
            typer.echo(f"{result.image}: {'; '.join(texts)}")
    if any(result.answer is None for result in results):
        raise typer.Exit(DataError.exit_code)


def _answer_text(answer: "AnyAnswer") -> str:
    """Return the class of an image, or its objects with likely scores."""
    if not isinstance(answer, tuple):
        return f"{answer.label} {100 * answer.probability:.1f}%"
    objects = [
        f"{each.label} {100 * each.score:.1f}% at {' '.join(f'{side:.0f}' for side in each.box)}"
        for each in answer
        if each.score >= _SHOWN_SCORE
    ]
    return ", ".join(objects) or "no object"


@contextmanager
def _display() -> "Iterator[Ui]":
    """A display for work that cannot be resumed after a signal."""
    from job.errors import Stopped
    from job.process.signals import StopSignals
    from job.ui.choose import make_ui

    with make_ui("text") as ui:
        try:
            with StopSignals():
                yield ui
        except Stopped as error:
            hint = "Nothing was written. Run the same command again."
            raise Stopped(error.signum, error.message, hint) from None


def _print(result: Mapping[str, Any]) -> None:
    """Print a result as text."""
    model, data, settings = result["model"], result["data"], result["settings"]
    accuracy, speed = result["accuracy"], result["speed"]
    kind = KINDS[model["kind"]]
    layer = "with" if model["accuracy_layer"] else "without"
    typer.echo(f"{kind} model {model['prefix']}, {layer} accuracy layer")
    typer.echo(
        f"{accuracy['images']:,} of {data['images']:,} images of {data['file']}, batch size "
        f"{settings['batch_size']}, {plural(settings['num_threads'], 'thread')}\n"
    )
    counts = [("Top-1", accuracy["top1_correct"]), ("Top-5", accuracy["top5_correct"])]
    for name, count in counts:
        if count is not None:
            share = 100 * count / accuracy["images"]
            typer.echo(f"{name}    {count:,} of {accuracy['images']:,} correct ({share:.2f}%)")
    latency = ", ".join(f"{name} {value:.3g} ms" for name, value in speed["latency_ms"].items())
    typer.echo(f"Speed    {speed['images_per_second']:,.1f} images/s")
    typer.echo(f"Latency  {latency} per batch ({speed['calls']:,} calls)")
    if result["primitives"] is not None:
        _print_primitives(result["primitives"])


def _print_primitives(rows: list[Mapping[str, Any]]) -> None:
    """Print the oneDNN primitives of one call, the slowest first."""
    typer.echo("\noneDNN primitives of one call")
    if not rows:
        typer.echo("  none: this model runs on Paddle's own kernels")
    for row in rows:
        typer.echo(
            f"  {row['milliseconds']:9.3f} ms  {row['count']:4}  {row['kind']:<16}"
            f"{row['data_type']:<6}{row['implementation']}"
        )
