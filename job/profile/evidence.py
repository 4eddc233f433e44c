"""The measured breakdown of an INT8 model's call, from which advice is derived."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.profile.kinds import REORDER, total_ms
from job.profile.layers import Layer
from job.profile.onednn_log import Primitive
from job.text_format import significant


@dataclass(frozen=True)
class Evidence:
    """The breakdown of one call of the INT8 model, and the machine.

    Attributes:
        isa_cap: the highest instruction set that oneDNN may use, or ``all``.
        batch_size: images of the call.
        primitives: the primitives that the call executes.
        outside_ms: time of the call outside its primitives.
        layers: convolutions and matrix products, each with its FP32 counterpart.
        left_in_fp32: name (empty if unknown) and primitive of each op that runs in FP32.
        islands: ``op`` and ``type`` of each INT8 op without INT8 neighbours.
        cpu_flags: CPU flags of the machine, as in ``/proc/cpuinfo``.
        allocator: memory allocator of the process, as in ``job.host.Host``.
    """

    isa_cap: str
    batch_size: int
    primitives: Sequence[Primitive]
    outside_ms: float
    layers: Sequence[Layer]
    left_in_fp32: Sequence[tuple[str, Primitive]]
    islands: Sequence[Mapping[str, str]]
    cpu_flags: Sequence[str]
    allocator: str

    @property
    def primitives_ms(self) -> float:
        """Time in all primitives."""
        return total_ms(self.primitives)

    @property
    def call_ms(self) -> float:
        """Time of a call."""
        return self.primitives_ms + self.outside_ms

    @property
    def reorder_share(self) -> float:
        """Share (0 to 1) of reorders in the time of all primitives."""
        spent = total_ms(p for p in self.primitives if p.kind == REORDER)
        return spent / self.primitives_ms if spent else 0.0

    def share(self, milliseconds: float) -> float:
        """Return the share (0 to 1) of a time in the time of the call."""
        return milliseconds / self.call_ms if self.call_ms else 0.0

    def with_share(self, milliseconds: float) -> str:
        """Return a time with its share, such as ``0.91 ms (12% of a call)``."""
        return f"{significant(milliseconds)} ms ({self.share(milliseconds):.0%} of a call)"
