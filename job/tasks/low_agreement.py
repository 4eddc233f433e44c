"""Explains why the INT8 or the fake-quantized model agrees little with what it was made from."""

from collections.abc import Mapping
from typing import Any

# Correct fake-quantized models were seen between 15 and 46 dB.
LOW_DECIBELS = 10.0
# Percentage of images with the same class below which INT8 can be wrong in spite of its decibels.
LOW_SAME_TOP1 = 90.0


def warnings_of(agreement: Mapping[str, Any], strategy: str) -> list[str]:
    """Return warnings why an agreement is low.

    Args:
        agreement: the ``audit.agreement`` entry of the report.
        strategy: ``quantize.strategy`` of the manifest.
    """
    warnings = []
    fake, halved = agreement["fake_fp32"]["signal_to_noise_db"], agreement.get("halved_fake")
    if halved:
        warnings.append(
            "the INT8 model agrees with the fake-quantized model at "
            f"{agreement['int8_fake']['signal_to_noise_db']:.1f} dB only. Without AVX512_VNNI, "
            "INT8 kernels halve the weights, which rounds them. In the fake-quantized model, this "
            f"rounding alone results in {halved['signal_to_noise_db']:.1f} dB. Run the manifest on "
            "a CPU with AVX512_VNNI"
        )
    # None for tasks without classes.
    same = agreement["int8_fake"]["same_top1"]
    if same is not None and same < LOW_SAME_TOP1:
        warnings.append(
            f"INT8 and the fake-quantized model choose the same class for only {same:.0f}% of "
            f"{agreement['images']} calibration images"
        )
    if fake < LOW_DECIBELS:
        remedy = (
            "Train longer (train.epochs)"
            if strategy == "aware"
            else "Train with quantization (quantize.strategy aware)"
        )
        warnings.append(
            f"the fake-quantized model agrees with FP32 at {fake:.1f} dB only: quantization itself "
            f"changes the outputs. {remedy}, or use more calibration images"
        )
    return warnings
