"""Compares the INT8 model with the fake-quantized model, and keeps ops at fault in FP32."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.errors import QuantizationError
from job.events import Events
from job.manifest import Manifest
from job.stages.match_search import search
from job.stages.stage import StageOutput
from job.stages.task import task_of
from job.stats.closeness import MAX_DECIBELS
from job.tasks.task import Agreement, Outputs
from job.text_format import plural

# Two roundings of the same weights can differ by twice the error of one of them, which is 6 dB.
ROUNDING_DECIBELS = 6.0
# Not published, because a trial's model is not needed after its comparison.
TRIAL = Path("checkpoints/match")

Images = NDArray[np.float32]


@dataclass
class Match:
    """Builds INT8 models with some ops in FP32, and compares them with what was trained.

    Attributes:
        manifest: sets the ops that run in INT8 and the bound.
        fake: prefix of the fake-quantized model.
        images: float32 [N, C, H, W].
        folder: folder for trials.
        events: receives progress.
        skip_ops: ops that are in FP32 in every model.
        halves_weights: whether oneDNN halves INT8 weights on this CPU, see
            :func:`job.engine.int8.halved_weights.halve_weights`.
        fp32: outputs of the FP32 model for ``images``.
    """

    manifest: Manifest
    fake: Path
    images: Images
    folder: Path
    events: Events
    skip_ops: Sequence[str]
    halves_weights: bool
    fp32: Outputs

    def of(self, prefix: Path, ops: Sequence[str] = ()) -> Agreement:
        """Compare a saved INT8 model with the fake-quantized model with ``ops`` in FP32."""
        from job.engine.int8.build import outputs_of

        found = outputs_of(prefix, self.images)
        return task_of(self.manifest).agreement(found, self.trained(ops), self.fp32)

    def trained(self, ops: Sequence[str] = (), *, halved_weights: bool = False) -> Outputs:
        """Return the outputs of the fake-quantized model with ``ops`` in FP32."""
        from job.engine.int8.expected import expected_outputs

        return expected_outputs(
            self.fake,
            self.images,
            self.manifest.quantize.quantize_op_types,
            quantized_ops=self.manifest.int8.quantized_ops,
            skip_ops=(*self.skip_ops, *ops),
            halved_weights=halved_weights,
        )

    def is_enough(self, found: Agreement) -> bool:
        """Return whether the agreement reaches the manifest's bound."""
        bound = self.manifest.gates.int8_matches_fake
        return bound is None or found.signal_to_noise_db >= bound

    @cached_property
    def halved(self) -> Agreement | None:
        """Agreement of the trained model with itself after its weights are halved.

        None if this CPU does not halve weights.
        """
        if not self.halves_weights:
            return None
        halved = self.trained(halved_weights=True)
        return task_of(self.manifest).agreement(halved, self.trained(), self.fp32)

    def halving_explains(self, found: Agreement) -> bool:
        """Return whether halved weights are a sufficient reason why INT8 misses the bound."""
        return not self.is_enough(found) and found.signal_to_noise_db >= self.reachable

    @property
    def reachable(self) -> float:
        """Lowest agreement in decibels of a model without an op at fault, on this CPU."""
        bound = self.manifest.gates.int8_matches_fake
        if bound is None:
            # Any model that can be built is right.
            return -MAX_DECIBELS
        if self.halved is None or self.is_enough(self.halved):
            return bound
        return self.halved.signal_to_noise_db - ROUNDING_DECIBELS

    def search(self) -> list[str] | None:
        """Return the ops to keep in FP32; None after a stop request."""
        from job.engine.int8.expected import ops_of

        fixed = set(self.skip_ops)
        names = ops_of(self.fake, self.manifest.quantize.quantize_op_types)
        return search([name for name in names if name not in fixed], self.agree, self.reachable)

    def agree(self, ops: Sequence[str]) -> float | None:
        """Build the model with ``ops`` in FP32 and compare it with what was trained.

        Returns:
            Decibels; minus infinity if the model cannot be built; None after a stop request.
        """
        from job.engine.int8 import build as int8

        if self.events.stopping:
            return None
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            int8.build(
                self.fake,
                self.folder,
                self.manifest.quantize.quantize_op_types,
                self.images,
                quantized_ops=self.manifest.int8.quantized_ops,
                skip_ops=(*self.skip_ops, *ops),
            )
            found = self.of(self.folder / int8.PREFIX, ops)
        except QuantizationError as error:
            self.events.message(f"match: {plural(len(ops), 'op')} in FP32: {error.message}")
            return -math.inf
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.events.message(
            f"match: {plural(len(ops), 'op')} in FP32: {found.signal_to_noise_db:.1f} dB against "
            "the fake-quantized model"
        )
        return found.signal_to_noise_db


def fp32_outputs(inputs: Mapping[str, StageOutput], images: Images) -> Outputs:
    """Return the outputs of the FP32 model."""
    from job.engine.inference.predictor import ONEDNN, Predictor, configuration

    prefix = inputs["baseline"].path / "model"
    return Predictor(configuration(prefix, ONEDNN, threads=1)).outputs(images)


def fake_against_fp32(match: Match) -> Agreement:
    """Compare the fake-quantized model with the FP32 model."""
    from job.engine.inference.predictor import FAKE_QUANTIZED, Predictor, configuration

    fake = Predictor(configuration(match.fake, FAKE_QUANTIZED, threads=1)).outputs(match.images)
    return task_of(match.manifest).agreement(fake, match.fp32)


def record_of(
    match: Match, int8: Agreement, fake: Agreement, kept: Sequence[str]
) -> dict[str, Any]:
    """Return the ``audit.agreement`` entry of the report.

    Args:
        match: the comparison.
        int8: INT8 against fake-quantized.
        fake: fake-quantized against FP32.
        kept: ops that the search keeps in FP32.
    """
    halved = match.halved if match.halving_explains(int8) else None
    return {
        "images": len(match.images),
        "int8_fake": asdict(int8),
        "fake_fp32": asdict(fake),
        "kept_in_fp32": list(kept),
        **({"halved_fake": asdict(halved)} if halved else {}),
    }
