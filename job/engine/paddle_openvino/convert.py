"""INT8 models for the OpenVINO engine inside Paddle Inference.

The engine reads a fake-quantized Paddle program and runs it in INT8. ``convert`` rewrites the
program so that more ops run in INT8 and are fused. Only this engine computes the rewritten program
correctly: Paddle's own kernels ignore the zero points.
"""

from pathlib import Path

from job.engine.conversion import Conversion
from job.engine.inference.saved_model import PREFIX, UNSIGNED_ZERO_POINT
from job.engine.rewrites.network import DEQUANTIZE, QUANTIZE, names
from job.engine.rewrites.openvino_form import in_openvino_form
from job.engine.rewrites.rules import halve_weights, round_before_products


def convert(fake_quantized: Path, out: Path, *, has_vnni: bool = True) -> Conversion:
    """Write model.pdmodel and model.pdiparams with the weights of the fake-quantized model.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        out: existing folder.
        has_vnni: whether the CPU has AVX512_VNNI. The weights of other CPUs have half the steps.
    """
    network = in_openvino_form(fake_quantized)
    round_before_products(network)
    if not has_vnni:
        halve_weights(network)
    network.write(out / PREFIX)
    zeros = [names(op.inputs, "ZeroPoint") for op in network.ops if op.type == QUANTIZE]
    weights = {
        name for op in network.ops if op.type == DEQUANTIZE for name in names(op.inputs, "X")
    }
    return {
        "quantizers": len(zeros),
        "unsigned": sum(zero[0].endswith(UNSIGNED_ZERO_POINT) for zero in zeros if zero),
        "int8_weights": sum(name in network.values for name in weights),
        "bytes": sum(file.stat().st_size for file in out.glob(f"{PREFIX}.*")),
    }
