"""Runs a deployed model on image files; deploy.json gives transform, names and settings."""

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.data.decode import EXTENSIONS
from job.data.system_folders import system_part
from job.errors import DataError, StageCrashed, UsageError
from job.pipeline.crash import last_lines
from job.predict.deployed import fp32_beside, read_deploy
from job.process.environment import environment
from job.process.json_channel import ChildProcess, describe_exit
from job.ui.protocol import Ui

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Answer:
    """The answer of one model for one image.

    Attributes:
        label: name of the class with the highest score.
        number: number of this class.
        probability: its probability, 0 to 1.
    """

    label: str
    number: int
    probability: float


@dataclass(frozen=True)
class FoundObject:
    """An object that a detector found.

    Attributes:
        label: name of its class.
        number: number of its class.
        score: 0 to 1.
        box: x0, y0, x1, y1 in pixels of the image file.
    """

    label: str
    number: int
    score: float
    box: tuple[float, float, float, float]


# Of a classifier, or of a detector.
AnyAnswer = Answer | tuple[FoundObject, ...]


@dataclass(frozen=True)
class ImageResult:
    """The answers for one image.

    Attributes:
        image: path of the file, or ``-``.
        answer: of the model; None if the image cannot be read.
        fp32: of the FP32 model; None without ``compare``.
        error: why the image cannot be read; empty if it can.
    """

    image: str
    answer: AnyAnswer | None
    fp32: AnyAnswer | None = None
    error: str = ""


def classify(folder: Path, image: str, ui: Ui, *, compare: bool) -> list[ImageResult]:
    """Run a model on an image, on all images below a folder, or on standard input (``-``).

    Args:
        folder: folder with the model and its deploy.json.
        image: path of a file or a folder, or ``-``.
        ui: shows progress.
        compare: also run the FP32 model of the same run.

    Raises:
        DataError: deploy.json, the model or the images are missing, or no image can be read.
        UsageError: the transform of the model or the meaning of its outputs is unknown.
        StageCrashed: the child process ended without a result.
    """
    folders = [folder, fp32_beside(folder)] if compare else [folder]
    records = [read_deploy(each) for each in folders]
    if records[0]["transform"] is None:
        raise UsageError(
            f"{folder}: the transform of images is unknown, because the data set was normalized",
            "Pack the images as the data set was packed, and use --infer-data.",
        )
    # A detector that decodes without NMS also has the outputs of its heads.
    meaning, crop = records[0]["output"]["meaning"], records[0]["transform"]["crop"]
    if meaning == "other" and "detection" not in records[0]:
        raise UsageError(
            f"{folder}: the meaning of the model's outputs is unknown",
            "Call the model from a program, see docs/deploy.md.",
        )
    if meaning == "boxes" and crop is not None:
        raise UsageError(
            f"{folder}: the transform crops images to {crop}, so boxes do not fit the file",
            "Set /data/resize_short to null, and run the job again.",
        )
    with image_files(image) as files:
        found = [
            _run(each, record, list(files.values()), ui)
            for each, record in zip(folders, records, strict=True)
        ]
    names = list(files)
    results = [
        ImageResult(name, one.get("answer"), two.get("answer"), one.get("error", ""))
        for name, one, two in zip(names, found[0], found[-1] if compare else [{}] * len(names),
                                  strict=True)
    ]  # fmt: skip
    if all(result.answer is None for result in results):
        first = results[0]
        raise DataError(f"{first.image}: {first.error}", "Give a readable JPEG or PNG file.")
    return results


@contextmanager
def image_files(image: str) -> Iterator[Mapping[str, Path]]:
    """Yield the files to classify by the name to show.

    Of a folder, hidden files and files in system folders are left out, as in data sets.

    Args:
        image: path of a file or a folder, or ``-`` for standard input.

    Raises:
        DataError: the folder contains no image.
    """
    if image == STANDARD_INPUT:
        with tempfile.TemporaryDirectory(prefix="job-predict-") as scratch:
            path = Path(scratch) / "image"
            path.write_bytes(sys.stdin.buffer.read())
            yield {STANDARD_INPUT: path}
        return
    path = Path(image)
    if not path.is_dir():
        yield {image: path}
        return
    found = sorted(each for each in path.rglob("*") if _is_image(each, path))
    if not found:
        raise DataError(f"{image}: the folder contains no image", "Give a folder with images.")
    yield {str(each): each for each in found}


def _is_image(file: Path, folder: Path) -> bool:
    inside = str(file.relative_to(folder))
    return file.suffix.lower() in EXTENSIONS and not system_part(inside) and file.is_file()


def _run(
    folder: Path, record: Mapping[str, Any], files: Sequence[Path], ui: Ui
) -> list[dict[str, Any]]:
    """Classify files in a child process, because Paddle reads its threads when it is imported."""
    best = record["measured"] or record["fastest"]
    threads = min(best["throughput"]["threads"], len(os.sched_getaffinity(0)))
    request = {
        "folder": str(folder),
        "deploy": record,
        "files": [str(path) for path in files],
        "threads": threads,
        "batch_size": best["throughput"]["batch_size"],
    }
    with tempfile.TemporaryDirectory(prefix="job-predict-") as scratch:
        path = Path(scratch) / "log.txt"
        with path.open("w") as log:
            child = ChildProcess(
                "job.predict.image_main",
                request,
                environment=environment(threads),
                log=log,
                own_session=True,
            )
        with closing(child):
            while message := child.receive():
                if "result" in message:
                    return [_named(row, record) for row in message["result"]]
                done, total = message["progress"]
                ui.progress("predict", "predict", done, total, "images")
            exit_code = child.wait()
        quoted = "".join(f"\n  | {line}" for line in last_lines(path, 0))
        raise StageCrashed(
            f"the process that runs {folder} {describe_exit(exit_code)}{quoted}",
            "Check the model's files, or give fewer images if memory ran out.",
        )


def _class_name(names: Sequence[str], number: int) -> str:
    """Return the name of a class; its number if the data set has no name for it."""
    return names[number] if number < len(names) else str(number)


def _named(row: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    if "error" in row:
        return {"error": row["error"]}
    if "objects" in row:
        objects = (
            FoundObject(
                _class_name(record["class_names"], each["number"]),
                each["number"],
                each["score"],
                tuple(each["box"]),
            )
            for each in row["objects"]
        )
        return {"answer": tuple(objects)}
    number = row["number"]
    return {"answer": Answer(record["class_names"][number], number, row["probability"])}
