"""Weights for a network that nobody trained, of which only the speed is wanted.

Those that Paddle draws let values fade from layer to layer, until a network scores whatever it sees
alike (MobileNetV1: within 1e-16): kernels and engines that compute wrongly then look right.
"""

import numpy as np

from job.engine.training import programs
from job.engine.training.session import Session

# Bounds of weights with one dimension, by the end of their name: batch norms and biases.
BOUNDS = {
    "_mean": (-0.2, 0.2),
    "_variance": (0.8, 1.2),
    "weight": (0.8, 1.2),
    "bias": (-0.2, 0.2),
}


def draw(session: Session, seed: int) -> None:
    """Put drawn weights into a session, always the same ones for a seed.

    Those of layers keep the size of what passes a relu (He et al., 2015); batch norms and biases
    are as a trained network might have them, so that none can be left out as zero.
    """
    block = session.classifier.train.global_block()
    generator = np.random.default_rng(seed)
    values = {}
    for key, variable in sorted(session.classifier.weight_names.items()):
        shape = tuple(block.var(variable).shape)
        if len(shape) > 1:
            inputs = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
            values[variable] = generator.standard_normal(shape) * np.sqrt(2 / inputs)
        elif bounds := next((found for end, found in BOUNDS.items() if key.endswith(end)), None):
            values[variable] = generator.uniform(*bounds, shape)
    programs.write_variables(
        session.scope, {name: value.astype("float32") for name, value in values.items()}
    )
