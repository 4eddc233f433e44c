"""Runs a detector that decodes boxes inside the model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from paddle import inference

from job.engine.inference.predictor import configuration


class Detector:
    """A whole detector loaded into Paddle Inference.

    Args:
        config: configuration of the model.

    Attributes:
        inputs: names of the inputs.
        names: names of the outputs.
    """

    def __init__(self, config: inference.Config) -> None:
        self._predictor = inference.create_predictor(config)
        self.inputs = tuple(self._predictor.get_input_names())
        self.names = tuple(self._predictor.get_output_names())

    def run(self, values: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return all outputs.

        Args:
            values: the inputs by name; further values are ignored.
        """
        for name in self.inputs:
            handle = self._predictor.get_input_handle(name)
            handle.reshape(values[name].shape)
            handle.copy_from_cpu(np.ascontiguousarray(values[name]))
        self._predictor.run()
        return tuple(self._predictor.get_output_handle(n).copy_to_cpu() for n in self.names)


def open_detector(prefix: Path, mode: str, threads: int) -> Detector:
    """Load a saved detector with its decoding; see ``configuration``."""
    return Detector(configuration(prefix, mode, threads=threads, whole=True))
