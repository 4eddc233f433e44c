"""The rows of the tutorial's tables I and II over all models of a matrix, as plain records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from job.report.run.tables import cap_name, is_stable, scenario_name
from job.stats import Interval


@dataclass(frozen=True)
class ModelAccuracy:
    """Table I: the fake-quantized model against INT8, in percent; what is not known is None."""

    model: str
    published: bool
    fp32_top1: float | None
    fake_top1: float | None
    int8_top1: float | None
    fake_top5: float | None
    int8_top5: float | None


@dataclass(frozen=True)
class RowSetting:
    """What a row of table II was measured at."""

    batch_size: int
    threads: int
    instances: int
    isa_cap: str


@dataclass(frozen=True)
class ModelSpeed:
    """Table II: one model at one setting, in images/s, with the published figures beside.

    ``int8`` and ``ratio`` are Paddle's; ``engines`` holds the images/s of INT8 in other engines,
    ``best_ratio`` is that of the fastest of all.
    """

    model: str
    setting: RowSetting
    isa: str
    fp32: float
    int8: float
    ratio: float
    ratio_interval: Interval | None
    stable: bool
    published_fp32: float | None
    published_int8: float | None
    engines: Mapping[str, float]
    fastest: str
    best_ratio: float
    best_interval: Interval | None
    best_stable: bool

    @property
    def published_ratio(self) -> float | None:
        """INT8 over FP32 of the published figures."""
        if self.published_fp32 is None or self.published_int8 is None:
            return None
        return self.published_int8 / self.published_fp32

    @property
    def reached(self) -> bool | None:
        """Whether the ratio is at or above the published one; None where there is none."""
        return None if self.published_ratio is None else self.ratio >= self.published_ratio

    @property
    def best_reached(self) -> bool | None:
        """The same of the fastest engine's ratio."""
        return None if self.published_ratio is None else self.best_ratio >= self.published_ratio


def accuracy_rows(report: Mapping[str, Any]) -> tuple[ModelAccuracy, ...]:
    """Table I: for each model what was measured, then what was published, where there is any."""
    rows = []
    for entry in report["matrix"]:
        if entry["accuracy"] is not None:
            fp32, fake, int8 = (entry["accuracy"][name] for name in ("fp32", "qat_fake", "int8"))
            values = (fp32["top1"], fake["top1"], int8["top1"], fake["top5"], int8["top5"])
            rows.append(ModelAccuracy(entry["model"], False, *values))
        published = entry["published"] or {}
        keys = ("qat_fake_top1", "int8_top1", "qat_fake_top5", "int8_top5")
        if any(published.get(key) is not None for key in keys):
            rows.append(ModelAccuracy(entry["model"], True, None, *map(published.get, keys)))
    return tuple(rows)


def speed_rows(report: Mapping[str, Any]) -> tuple[ModelSpeed, ...]:
    """Table II: one row for each model and setting, in the report's order."""
    return tuple(
        _speed(entry, row) for entry in report["matrix"] for row in entry["benchmark"] or ()
    )


def _speed(entry: Mapping[str, Any], row: Mapping[str, Any]) -> ModelSpeed:
    published = entry["published"] or {}
    best = row["engines"].get(row["fastest"], row)
    return ModelSpeed(
        model=entry["model"],
        setting=RowSetting(row["batch_size"], row["threads"], row["instances"], row["isa_cap"]),
        isa=row["isa"],
        fp32=row["fp32"]["images_per_second"],
        int8=row["int8"]["images_per_second"],
        ratio=row["ratio"],
        ratio_interval=_interval(row["ratio_interval"]),
        stable=row["stable"],
        published_fp32=published.get("fp32_images_per_second"),
        published_int8=published.get("int8_images_per_second"),
        engines={name: speed["images_per_second"] for name, speed in row["engines"].items()},
        fastest=row["fastest"],
        best_ratio=best["ratio"],
        best_interval=_interval(best["ratio_interval"]),
        best_stable=is_stable(row, best),
    )


def _interval(bounds: Any) -> Interval | None:
    return None if bounds is None else (bounds[0], bounds[1])


def settings(rows: tuple[ModelSpeed, ...]) -> tuple[RowSetting, ...]:
    """Each setting once, in the order in which they come."""
    return tuple(dict.fromkeys(row.setting for row in rows))


def setting_name(setting: RowSetting) -> str:
    """A setting in words, such as ``batch 50, ISA cap avx512_core_vnni``."""
    words = [f"batch {setting.batch_size}"]
    if setting.threads > 1 or setting.instances > 1:
        words.append(scenario_name(setting))
    return ", ".join([*words, cap_name(setting.isa_cap)])
