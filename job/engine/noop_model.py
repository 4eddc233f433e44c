"""A model that computes nothing. Its latency is the overhead of a call."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from paddle import static

from job.engine.inference.predictor import NATIVE, Predictor, configuration
from job.engine.training import programs


def open_model(input_shape: Sequence[int], threads: int) -> Predictor:
    """Return a predictor that reads images [N, *input_shape] and copies one value of them.

    Args:
        input_shape: (channels, height, width).
        threads: number of threads of the math library.
    """
    main = static.Program()
    with static.program_guard(main):
        image = static.data(programs.IMAGE, [None, *input_shape], "float32")
        # `scale` or `assign` would copy the batch, which takes milliseconds for 50 images.
        number = image[:1, :1, :1, :1]
    with tempfile.TemporaryDirectory(prefix="job-nothing-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no variable in your model")
        prefix = Path(folder) / "model"
        executor = static.Executor(programs.cpu())
        programs.save_inference_model(main, prefix, [number.name], executor)
        # Paddle writes no parameter file for a model without weights, but needs one to load it.
        Path(f"{prefix}.pdiparams").touch()
        return Predictor(configuration(prefix, NATIVE, threads=threads))
