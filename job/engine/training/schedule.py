"""The learning rate schedule of a training."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the step.

    Attributes:
        kind: ``piecewise``, ``cosine`` or ``constant``.
        base: learning rate after warm-up.
        milestones: fractions of all steps after which a piecewise rate is multiplied by ``gamma``.
        gamma: factor of a piecewise rate at each milestone.
        warmup: fraction of all steps over which the rate grows linearly from 0.
    """

    kind: str
    base: float
    milestones: tuple[float, ...]
    gamma: float
    warmup: float

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of step ``step`` (from 0) of ``total`` steps."""
        warmup_steps = round(self.warmup * total)
        if step < warmup_steps:
            return self.base * (step + 1) / warmup_steps
        if self.kind == "piecewise":
            passed = sum(step >= round(m * total) for m in self.milestones)
            return self.base * self.gamma**passed
        if self.kind == "cosine":
            done = (step - warmup_steps) / max(1, total - warmup_steps)
            return 0.5 * self.base * (1 + math.cos(math.pi * done))
        return self.base
