"""Random weights for an untrained network of which only the speed is measured.

With Paddle's initial weights, activations become smaller from layer to layer, until all images have
the same scores (MobileNetV1: within 1e-16). Wrong results of kernels and engines would then not
change the scores.
"""

import numpy as np

from job.engine.training import programs
from job.engine.training.session import Session

# Bounds of one-dimensional weights (batch norms and biases) by the end of their name.
BOUNDS = {
    "_mean": (-0.2, 0.2),
    "_variance": (0.8, 1.2),
    "weight": (0.8, 1.2),
    "bias": (-0.2, 0.2),
}


def draw(session: Session, seed: int) -> None:
    """Write random weights to a session; equal seeds give equal weights.

    The weights of layers preserve the variance of activations after a relu (He et al., 2015). Batch
    norms and biases have values that are possible in a trained network, so that no engine can skip
    them as zero.
    """
    block = session.classifier.train.global_block()
    generator = np.random.default_rng(seed)
    values = {}
    for key, variable in sorted(session.classifier.weight_names.items()):
        shape = tuple(block.var(variable).shape)
        if len(shape) > 1:
            inputs = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
            values[variable] = generator.standard_normal(shape) * np.sqrt(2 / inputs)
        elif bounds := next((pair for end, pair in BOUNDS.items() if key.endswith(end)), None):
            values[variable] = generator.uniform(*bounds, shape)
    programs.write_variables(
        session.scope, {name: value.astype("float32") for name, value in values.items()}
    )
