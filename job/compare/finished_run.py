"""Reads what is compared of a finished run: its report, its predictions and its timings."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.benchmark.samples import BenchmarkSetting, Conditions, Samples
from job.errors import DataError, UsageError
from job.events import Say
from job.pipeline.output_location import Location, place_of
from job.pipeline.report_files import read_artifact, read_valid
from job.report.tables import Setting, is_matrix

PREDICTIONS = "accuracy/predictions.npz"
SAMPLES = "benchmark/samples.json"
TEST_IMAGES = "data/test.bin"

# Images/s of each round, by setting and by the label of the model in samples.json.
Rates = Mapping[Setting, Mapping[str, tuple[float, ...]]]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run of one model.

    Attributes:
        output: the folder or S3 prefix of the run.
        report: the valid content of report.json.
        predictions: ``labels`` and the predicted class of each model by name, int64 [N] each; None
            if the output has no predictions.
        rates: images/s of each round of the benchmark; empty if the output has no timings.
    """

    output: Location
    report: Mapping[str, Any]
    predictions: Mapping[str, NDArray[np.int64]] | None
    rates: Rates

    @property
    def test_digest(self) -> str | None:
        """The SHA-256 of the packed test images; None if it is unknown."""
        return _digests(self.report).get(TEST_IMAGES)


def open_run(text: str, say: Say) -> FinishedRun:
    """Return the finished run in a folder or in S3.

    Args:
        text: the folder, or an ``s3://`` URI.
        say: callback for messages about requests that fail repeatedly.

    Raises:
        UsageError: the output has no finished run, or the run has several models.
        DataError: a file of the run is damaged.
    """
    place = place_of(text)
    report = read_valid(place, say)
    if is_matrix(report):
        names = ", ".join(str(entry["model"]) for entry in report["matrix"])
        raise UsageError(
            f"{place} contains several models ({names}); `job compare` compares two models",
            f"Give the folder of one model, such as {place / str(report['matrix'][0]['model'])}.",
        )
    predictions = _content(place, report, PREDICTIONS, say)
    samples = _content(place, report, SAMPLES, say)
    return FinishedRun(
        output=place,
        report=report,
        predictions=None if predictions is None else _predictions(place, predictions),
        rates={} if samples is None else _rates(place, samples),
    )


def _digests(report: Mapping[str, Any]) -> Mapping[str, str]:
    return {each["path"]: each["sha256"] for each in report["artifacts"]}


def _content(place: Location, report: Mapping[str, Any], name: str, say: Say) -> bytes | None:
    """Return the content of a file of a run; None if the output does not contain the file."""
    digest = _digests(report).get(name)
    content = None if digest is None else read_artifact(place, name, say)
    if content is not None and hashlib.sha256(content).hexdigest() != digest:
        raise DataError(
            f"{place / name} differs from the checksum in report.json",
            "Restore the file, or run the job again.",
        )
    return content


def _predictions(place: Location, content: bytes) -> Mapping[str, NDArray[np.int64]] | None:
    try:
        with np.load(io.BytesIO(content)) as saved:
            found = dict(saved)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{place / PREDICTIONS} cannot be read: {error}", "Run the job again."
        ) from error
    # Other tasks than classification write other arrays, which have no paired test.
    shapes = {array.shape for array in found.values()}
    return found if "labels" in found and len(shapes) == 1 and found["labels"].ndim == 1 else None


def _rates(place: Location, content: bytes) -> Rates:
    try:
        found = [[_samples(one) for one in each["samples"]] for each in json.loads(content)]
        return {
            _setting(samples[0].conditions.setting): {
                one.label: tuple(one.rates) for one in samples
            }
            for samples in found
        }
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
        raise DataError(
            f"{place / SAMPLES} cannot be read: {error!r}", "Run the job again."
        ) from error


def _samples(one: Mapping[str, Any]) -> Samples:
    conditions = one["conditions"]
    setting = BenchmarkSetting(**conditions["setting"])
    return Samples(
        one["label"],
        one["rounds"],
        one["peak_rss_bytes"],
        Conditions(conditions["host"], conditions["isa"], setting),
    )


def _setting(found: BenchmarkSetting) -> Setting:
    return Setting(found.batch_size, found.threads, found.instances, found.isa_cap)
