"""INT8 models by NNCF, OpenVINO's tool of quantization, which ours are compared with."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Images that NNCF measures, its own default.
SUBSET = 300


@dataclass(frozen=True)
class Variant:
    """Settings of NNCF.

    Attributes:
        fold: fold batch norms first, as OpenVINO's converter does. Otherwise NNCF puts a quantizer
            between a convolution and its batch norm, and corrects hardly any bias.
        overflow_fix: value of ``advanced_parameters.overflow_fix``; None keeps NNCF's default,
            which halves the steps of weights so that sums of CPUs without VNNI do not overflow.
    """

    fold: bool
    overflow_fix: str | None = None


VARIANTS: Mapping[str, Variant] = {
    "NNCF, defaults": Variant(fold=False),
    "NNCF, batch norms folded": Variant(fold=True),
    "NNCF, batch norms folded, no overflow fix": Variant(fold=True, overflow_fix="disable"),
}


def quantize(
    fp32: Path, images: NDArray[np.float32], out: Path, variant: Variant, model_name: str
) -> float:
    """Write an INT8 model that NNCF made after training.

    Args:
        fp32: prefix of the FP32 model, a Paddle inference model.
        images: calibration images, float32 [N, C, H, W]; NNCF measures at most ``SUBSET`` of them.
        out: folder for the model; created.
        variant: settings.
        model_name: file name of the model, such as "model.xml".

    Returns:
        The time that NNCF took, in seconds.
    """
    import nncf
    import openvino as ov
    from openvino._offline_transformations import apply_moc_transformations

    model = ov.Core().read_model(fp32.with_suffix(".pdmodel"))
    if variant.fold:
        apply_moc_transformations(model, cf=True, smart_reshape=False)
    settings: dict[str, Any] = {}
    if variant.overflow_fix is not None:
        fix = nncf.OverflowFix(variant.overflow_fix)
        settings["advanced_parameters"] = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
    dataset = nncf.Dataset([image[None] for image in images[:SUBSET]])
    began = time.monotonic()
    quantized = nncf.quantize(model, dataset, subset_size=SUBSET, **settings)
    seconds = time.monotonic() - began
    out.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out / model_name, compress_to_fp16=False)
    return seconds
