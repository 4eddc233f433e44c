"""A model that computes nothing. Its latency is the overhead of a call."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from paddle.base.proto import framework_pb2

from job.engine.inference.paddle_format import ProgramDesc, VarType, make_op, write_model
from job.engine.inference.predictor import NATIVE, Predictor, configuration

IMAGE, NUMBER = "image", "number"
RANK = 4


def open_model(input_shape: Sequence[int], threads: int) -> Predictor:
    """Return a predictor that reads images [N, *input_shape] and copies one value of them.

    Args:
        input_shape: (channels, height, width).
        threads: number of threads of the math library.
    """
    with tempfile.TemporaryDirectory(prefix="job-nothing-") as folder:
        prefix = Path(folder) / "model"
        write_model(prefix, noop_program(input_shape), {})
        return Predictor(configuration(prefix, NATIVE, threads=threads))


def noop_program(input_shape: Sequence[int]) -> ProgramDesc:
    """Return a program that cuts the first value out of its images.

    The ops ``scale`` and ``assign`` would copy the batch, which takes milliseconds for 50 images.
    """
    program = ProgramDesc()
    block = program.blocks.add(idx=0, parent_idx=-1)
    for name, kind in (("feed", VarType.FEED_MINIBATCH), ("fetch", VarType.FETCH_LIST)):
        block.vars.add(name=name, persistable=True).type.type = kind
    for name, shape in ((IMAGE, [-1, *input_shape]), (NUMBER, [1] * RANK)):
        variable = block.vars.add(name=name).type
        variable.type = VarType.DENSE_TENSOR
        variable.dense_tensor.tensor.data_type = VarType.FP32
        variable.dense_tensor.tensor.dims.extend(shape)
    cut = make_op("slice", {"Input": IMAGE}, {"Out": NUMBER}, {})
    for name, values in (("axes", range(RANK)), ("starts", [0] * RANK), ("ends", [1] * RANK)):
        cut.attrs.add(name=name, type=framework_pb2.INTS, ints=values)
    feed = make_op("feed", {"X": "feed"}, {"Out": IMAGE}, {"col": 0})
    fetch = make_op("fetch", {"X": NUMBER}, {"Out": "fetch"}, {"col": 0})
    block.ops.extend([feed, cut, fetch])
    return program
