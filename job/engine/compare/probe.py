"""Reads intermediate values of an INT8 model."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import OpDesc, add_variable, make_op, read_program
from job.engine.inference.predictor import INT8, Predictor, configuration
from job.engine.training.programs import IMAGE

READ = "@read"


class Probe:
    """A copy of an INT8 model with intermediate variables as further outputs.

    Args:
        prefix: prefix of the model.
        scales: variables to read -> scale of the variables that contain 8-bit integers; None for
            other variables.
    """

    def __init__(self, prefix: Path, scales: Mapping[str, float | None]) -> None:
        scales = {name: scale for name, scale in scales.items() if name != IMAGE}
        self.names = list(scales)
        program = read_program(Path(f"{prefix}.pdmodel"))
        ops = program.blocks[0].ops
        fetches = [op for op in ops if op.type == "fetch"]
        for column, (name, scale) in enumerate(scales.items(), start=len(fetches)):
            source = name
            if scale is not None:
                source = f"{name}{READ}"
                add_variable(program, source, np.zeros(0, "float32"), persistable=False)
                ops.append(dequantize(name, source, scale))
            ops.append(make_op("fetch", {"X": source}, {"Out": "fetch"}, {"col": column}))
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "model"
            Path(f"{copy}.pdmodel").write_bytes(program.SerializeToString())
            Path(f"{copy}.pdiparams").symlink_to(Path(f"{prefix}.pdiparams").absolute())
            self.model = Predictor(configuration(copy, INT8, threads=1))
        # The handles are selected by column, because Paddle names a fetched variable only once.
        outputs = self.model.predictor.get_output_names()[len(fetches) :]
        self.handles = [self.model.predictor.get_output_handle(name) for name in outputs]

    def values(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the variables' values in floating point for images, float32 [N, C, H, W]."""
        self.model.scores(images)
        values = {n: h.copy_to_cpu() for n, h in zip(self.names, self.handles, strict=True)}
        return {IMAGE: images, **values}


def dequantize(name: str, output: str, scale: float) -> OpDesc:
    """Return an op that divides 8-bit integers by their scale."""
    op = make_op("dequantize", {"Input": name}, {"Output": output}, {})
    op.attrs.add(name="Scale", type=framework_pb2.FLOAT, f=scale)
    op.attrs.add(name="is_negative_input", type=framework_pb2.BOOLEAN, b=False)
    return op
