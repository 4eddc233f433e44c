"""Raw latencies and the conditions of their measurement.

Only latencies that were measured under the same conditions may be compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from job.errors import IncomparableSamples


@dataclass(frozen=True)
class BenchmarkSetting:
    """The conditions of one row of table II.

    Attributes:
        batch_size: images of one call.
        threads: threads of one instance.
        input_shape: (channels, height, width).
        instances: processes that run the same model simultaneously.
        isa_cap: the highest instruction set that oneDNN may use, or ``all``.
    """

    batch_size: int
    threads: int
    input_shape: tuple[int, int, int]
    instances: int = 1
    isa_cap: str = "all"

    @property
    def scenario(self) -> str:
        """``latency`` (one instance) or ``throughput`` (several instances)."""
        return "latency" if self.instances == 1 else "throughput"

    @property
    def cores(self) -> int:
        """Number of cores that all instances use together."""
        return self.threads * self.instances

    def __str__(self) -> str:
        if self.instances > 1:
            where = f"{self.instances} instances"
        else:
            where = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        cap = "" if self.isa_cap == "all" else f", {self.isa_cap}"
        return f"batch {self.batch_size}, {where}{cap}"


@dataclass(frozen=True)
class Conditions:
    """The conditions of a measurement, which must be equal for samples to be compared.

    Attributes:
        host: the machine, as in report.json.
        isa: the instruction set that the INT8 model executes under the setting's cap.
        setting: batch size, threads, instances and the rest.
    """

    host: Mapping[str, Any]
    isa: str
    setting: BenchmarkSetting


@dataclass(frozen=True)
class Samples:
    """The latencies of one model.

    Attributes:
        label: how the model ran, see :class:`job.benchmark.timer.Candidate`.
        rounds: milliseconds per call, as [round][instance][call].
        peak_rss_bytes: largest peak memory of the model's processes.
        conditions: the conditions of the measurement.
    """

    label: str
    rounds: Sequence[Sequence[Sequence[float]]]
    peak_rss_bytes: int
    conditions: Conditions

    @property
    def all(self) -> list[float]:
        """Every latency."""
        return [value for one in self.rounds for instance in one for value in instance]

    @property
    def rates(self) -> list[float]:
        """Images/s of each round, as the sum over all instances."""
        images = self.conditions.setting.batch_size
        return [
            sum(1000.0 * images * len(instance) / sum(instance) for instance in one)
            for one in self.rounds
        ]


def require_comparable(one: Samples, other: Samples) -> None:
    """Check that two samples were measured under the same conditions.

    Raises:
        IncomparableSamples: the message lists each condition that differs.
    """
    if one.conditions == other.conditions:
        return
    differences = ", ".join(_differences(asdict(one.conditions), asdict(other.conditions)))
    raise IncomparableSamples(
        f"{one.label} and {other.label} were measured under different conditions: {differences}",
        "Measure both in one run: `job run MANIFEST --from benchmark`.",
    )


def _differences(
    one: Mapping[str, Any], other: Mapping[str, Any], place: str = ""
) -> Iterator[str]:
    for key in sorted({*one, *other}):
        first, second = one.get(key), other.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            yield from _differences(first, second, "" if key == "setting" else f"{key} ")
        elif first != second:
            yield f"{place}{key} {first} and {second}"
