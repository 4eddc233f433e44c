"""What is known of the time of an INT8 model's call, before anything is advised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.profile.kinds import REORDER, total_ms
from job.profile.layers import Layer
from job.profile.onednn_log import Primitive
from job.text_format import significant


@dataclass(frozen=True)
class Evidence:
    """Of one call, all of the INT8 model.

    Attributes:
        isa_cap: the highest instruction set that oneDNN might use, or ``all``.
        batch_size: images of the call.
        primitives: what a call executes.
        outside_ms: what it takes besides.
        layers: its convolutions and matrix products, beside those of the FP32 model.
        left_in_fp32: name, if known, and primitive of what it computes in FP32.
        islands: ``op`` and ``type`` of each INT8 op without INT8 neighbours.
        cpu_flags: the machine's, as ``/proc/cpuinfo`` names them.
        allocator: the machine's memory allocator, as ``job.host`` names it.
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
        """Share, 0 to 1, of the time in all primitives that goes into reorders."""
        spent = total_ms(p for p in self.primitives if p.kind == REORDER)
        return spent / self.primitives_ms if spent else 0.0

    def share(self, milliseconds: float) -> float:
        """A time's share, 0 to 1, of a call."""
        return milliseconds / self.call_ms if self.call_ms else 0.0

    def told(self, milliseconds: float) -> str:
        """A time with its share, such as ``0.91 ms (12% of a call)``."""
        return f"{significant(milliseconds)} ms ({self.share(milliseconds):.0%} of a call)"
