"""Weights for the networks of manifest.json: drawn, and always the same.

    python tests/bench/weights.py FOLDER

Those that Paddle draws lead most untrained networks to like scores for whatever they see, and such
scores do not move when kernels go wrong.
"""

import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from job.manifest import entries, load

MANIFEST = Path(__file__).with_name("manifest.json")
# Bounds of what has one dimension, by the end of its name: batch norms and biases.
BOUNDS = {
    "_mean": (-0.2, 0.2),
    "_variance": (0.8, 1.2),
    "weight": (0.8, 1.2),
    "bias": (-0.2, 0.2),
}


def main(folder: Path) -> None:
    """Write NAME.pdparams of each network, unless it is there."""
    os.environ.setdefault("FLAGS_enable_pir_api", "0")
    from job.engine import session as sessions

    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries(load(str(MANIFEST))):
        model, file = entry.model, folder / f"{entry.name}.pdparams"
        if file.exists():
            continue
        session = sessions.open_session(
            name=model.name,
            callable_=None,
            inference_model=None,
            classes=model.classes,
            input_shape=model.input_shape,
            width=model.width,
            seed=0,
            label_smoothing=0.0,
        )
        block = session.classifier.train.global_block()
        names = session.classifier.weight_names
        generator = np.random.default_rng(0)
        arrays = {
            key: drawn(key, tuple(block.var(variable).shape), generator)
            for key, variable in sorted(names.items())
        }
        sessions.paddle.save(arrays, str(file))
        print(f"{file}: {len(arrays)} arrays")


def drawn(key: str, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Values of a weight; those of layers keep the size of what passes a relu (He et al., 2015)."""
    if len(shape) > 1:
        inputs = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
        return (generator.standard_normal(shape) * np.sqrt(2 / inputs)).astype("float32")
    low, high = next(bounds for end, bounds in BOUNDS.items() if key.endswith(end))
    return generator.uniform(low, high, shape).astype("float32")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
