"""What to deploy where INT8 is slower than FP32, ranked by the measured gain."""

from collections.abc import Mapping, Sequence
from typing import Any

from job import text_format
from job.report.deploy import PADDLE, PADDLE_OPENVINO
from job.report.tables import INT8_ENGINE_NAMES, SpeedRow, setting_name, speed_rows


def slower_rows(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """Return the rows at which INT8 in Paddle is slower than FP32."""
    return [row for row in rows if round(row.ratio, 2) < 1]


def recommendations(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a recommendation for each setting at which INT8 is slower; empty if there is none.

    It names the alternatives that were measured as faster, the largest gain first: another engine,
    a larger batch of the same load in its fastest engine, FP32. If the 95% interval contains 1, it
    names none.
    """
    rows = speed_rows(report)
    return tuple(_recommendation(report, row, rows) for row in slower_rows(rows))


def _recommendation(report: Mapping[str, Any], row: SpeedRow, rows: Sequence[SpeedRow]) -> str:
    where = setting_name(report, row.setting)
    speedup = text_format.judged_times(row.ratio, row.stable)
    if row.ratio_interval is not None and row.ratio_interval[1] >= 1:
        return (
            f"INT8 may be slower than FP32 at {where} in Paddle: {speedup}. The 95% interval "
            "contains 1. Measure again on an idle machine."
        )
    gains: list[tuple[float, str]] = [(1 / row.ratio, "FP32 at the same setting")]
    if row.fp32_paddle_openvino is not None and row.fp32_paddle_openvino > row.int8:
        name = f"FP32 in {INT8_ENGINE_NAMES[PADDLE_OPENVINO]} at the same setting"
        gains.append((row.fp32_paddle_openvino / row.int8, name))
    for speed in row.engines[1:]:
        if speed.ratio > 1:
            name = f"INT8 in {INT8_ENGINE_NAMES[speed.engine]} at the same setting"
            gains.append((speed.ratio / row.ratio, name))
    for other in rows:
        same_load = _load(other) == _load(row) and other.setting != row.setting
        fastest = max(other.engines, key=lambda speed: speed.images_per_second)
        if same_load and other.setting.batch_size > row.setting.batch_size and fastest.ratio > 1:
            engine = INT8_ENGINE_NAMES[fastest.engine]
            what = "INT8" if fastest.engine == PADDLE else f"INT8 in {engine}"
            name = f"{what} with batch size {other.setting.batch_size}"
            gains.append((fastest.images_per_second / row.int8, name))
    gains.sort(key=lambda gain: -gain[0])
    listed = ", ".join(f"{name} ({text_format.times(gain)} the images/s)" for gain, name in gains)
    return (
        f"INT8 is slower than FP32 at {where} in Paddle: {speedup}. Do not deploy INT8 on this "
        f"engine at this setting. Measured alternatives, the largest gain first: {listed}."
    )


def _load(row: SpeedRow) -> tuple[int, int, str]:
    return row.setting.threads, row.setting.instances, row.setting.isa_cap
