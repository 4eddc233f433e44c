"""A model that does nothing: its time is what a call costs whatever the model."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from paddle import static

from job.engine.inference.predictor import NATIVE, Predictor, configuration
from job.engine.training import programs


def open_model(input_shape: Sequence[int], threads: int) -> Predictor:
    """A predictor that takes images [N, *input_shape] and copies one number of them.

    Args:
        input_shape: (channels, height, width).
        threads: of the maths library.
    """
    main = static.Program()
    with static.program_guard(main):
        image = static.data(programs.IMAGE, [None, *input_shape], "float32")
        # Not `scale` or `assign`: copying a batch of 50 images takes milliseconds.
        number = image[:1, :1, :1, :1]
    with tempfile.TemporaryDirectory(prefix="job-nothing-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no variable in your model")
        prefix = Path(folder) / "model"
        executor = static.Executor(programs.cpu())
        programs.save_inference_model(main, prefix, number.name, executor)
        # Paddle writes no file for no weights, but wants to be given one.
        Path(f"{prefix}.pdiparams").touch()
        return Predictor(configuration(prefix, NATIVE, threads=threads))
