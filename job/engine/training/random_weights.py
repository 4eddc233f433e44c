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
# Activations that depend on the magnitude of their input. In front of a gate, large values amplify
# the rounding of INT8 models, so a right model could not be told from a wrong model.
CURVED = {"hard_sigmoid", "hard_swish", "sigmoid", "swish"}
# Root mean square of the values behind a batch norm of a network with such activations. They are
# almost linear at this magnitude. MobileNetV3-large without VNNI, INT8 against the fake-quantized
# model with halved weights: 31 dB at 0.25, 25 dB at 0.5, 22 dB at 1, and 9 dB without this bound.
MAGNITUDE = 0.25


def draw(session: Session, seed: int) -> None:
    """Write random weights to a session; equal seeds give equal weights.

    The weights of layers preserve the variance of activations after a relu (He et al., 2015). Batch
    norms and biases have values that are possible in a trained network, so that no engine can skip
    them as zero. In a network with curved activations, the values behind all batch norms have one
    magnitude. Otherwise they grow from block to block, up to 300 in MobileNetV3.
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
    if any(op.type in CURVED for op in session.classifier.evaluation.global_block().ops):
        keep_magnitudes(session, generator)


def keep_magnitudes(session: Session, generator: np.random.Generator) -> None:
    """Give the values behind each batch norm about the same magnitude, for a random image."""
    evaluation = session.classifier.evaluation
    # One image, because all activations are in memory.
    image = generator.standard_normal((1, *session.input_shape)).astype("float32")
    norms = [op for op in evaluation.global_block().ops if op.type == "batch_norm"]
    # One list of outputs for all runs, because Paddle compiles the program for each new list.
    inputs = [op.input("X")[0] for op in norms]
    changed: set[str] = set()
    for number, op in enumerate(norms):
        if op.input("Mean")[0] in changed:
            # The layer is called again.
            continue
        changed.add(op.input("Mean")[0])
        # The batch norms before this one have their final values.
        found = session.executor.run(
            evaluation, {programs.IMAGE: image}, inputs, scope=session.scope
        )[number]
        size = np.sqrt(np.mean(found**2, dtype=np.float64)) / MAGNITUDE
        for slot, scale in (("Mean", size), ("Variance", size**2)):
            name = op.input(slot)[0]
            drawn = programs.read_variables(session.scope, [name])[name]
            programs.write_variables(session.scope, {name: (drawn * scale).astype("float32")})
