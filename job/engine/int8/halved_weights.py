"""Rounds the weights of a fake-quantized model as oneDNN does without AVX512_VNNI."""

from pathlib import Path

import numpy as np

from job.engine.inference.paddle_format import read_parameters, read_program, write_model
from job.engine.quantize.fake_quantize import DEQUANTIZE


def halve_weights(prefix: Path) -> None:
    """Store the quantized weights of a model in half of their steps, with twice their scale.

    Without AVX512_VNNI, oneDNN adds two products in 16 bits. It halves the weights, so that the sum
    cannot saturate. Odd weights are rounded.

    Args:
        prefix: prefix of a fake-quantized model; its files are replaced.
    """
    program = read_program(Path(f"{prefix}.pdmodel"))
    parameters = read_parameters(Path(f"{prefix}.pdiparams"), program)
    halved = set()
    for op in program.blocks[0].ops:
        slots = {slot.parameter: slot.arguments[0] for slot in op.inputs if slot.arguments}
        # Two ops can share a weight.
        if op.type != DEQUANTIZE or slots["X"] not in parameters or slots["X"] in halved:
            continue
        halved.add(slots["X"])
        weight, scale = parameters[slots["X"]], parameters[slots["Scale"]]
        parameters[slots["X"]] = np.rint(weight.astype("float32") / 2).astype(weight.dtype)
        parameters[slots["Scale"]] = 2 * scale
    write_model(prefix, program, parameters)
