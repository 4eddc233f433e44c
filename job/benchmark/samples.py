"""Raw latencies with the conditions they were measured under, which decide what they compare to."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from job.errors import IncomparableSamples


@dataclass(frozen=True)
class BenchmarkSetting:
    """What is timed: one row of table II.

    Attributes:
        batch_size: images of one call.
        threads: of one instance.
        input_shape: (channels, height, width).
        instances: processes that run the same model side by side.
        isa_cap: highest instruction set that oneDNN may use, or ``all``.
    """

    batch_size: int
    threads: int
    input_shape: tuple[int, int, int]
    instances: int = 1
    isa_cap: str = "all"

    @property
    def scenario(self) -> str:
        """``latency`` of one instance, or ``throughput`` of several."""
        return "latency" if self.instances == 1 else "throughput"

    @property
    def cores(self) -> int:
        """Cores that are kept busy."""
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
    """What two samples must have in common.

    Attributes:
        host: the machine, as in report.json.
        isa: instruction set that the INT8 model really executes under the setting's cap.
        setting: batch size, threads, instances and the rest.
    """

    host: Mapping[str, Any]
    isa: str
    setting: BenchmarkSetting


@dataclass(frozen=True)
class Samples:
    """Latencies of one model.

    Attributes:
        label: what ran: ``native``, ``onednn``, ``int8``, ``openvino``, ``onnxruntime``,
            ``nothing``.
        rounds: milliseconds a call, as [round][instance][call].
        peak_rss_bytes: of the largest of its processes.
        conditions: what it was measured under.
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
        """Images a second of each round, summed over its instances."""
        images = self.conditions.setting.batch_size
        return [
            sum(1000.0 * images * len(instance) / sum(instance) for instance in one)
            for one in self.rounds
        ]


def require_comparable(one: Samples, other: Samples) -> None:
    """Check that a ratio of two samples says something of the models alone.

    Raises:
        IncomparableSamples: names all that differs, such as host, ISA, threads.
    """
    if one.conditions == other.conditions:
        return
    told = ", ".join(_differences(asdict(one.conditions), asdict(other.conditions)))
    raise IncomparableSamples(
        f"{one.label} and {other.label} were not measured alike: {told}",
        "Measure both in one run: job run ... --from benchmark.",
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
