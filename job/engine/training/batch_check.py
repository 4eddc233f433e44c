"""Checks that the outputs of an image do not depend on the other images of its batch.

Training, calibration, the accuracy and the deployed model use batches of different sizes.
"""

import numpy as np
import paddle
from paddle.static import Program

from job.engine.inference.failure import reason_of
from job.engine.training.programs import IMAGE
from job.engine.training.session import Session
from job.engine.training.tracing import place_of
from job.errors import UsageError
from job.stats import relative_error

# Not 1, because code that assumes a batch of one image would not be noticed.
IMAGES = 3
# Rounding differs by about 1e-6, because the order of sums can depend on the size of the batch.
MAX_ERROR = 1e-3
FLOATS = (paddle.float32, paddle.float64)


def check_batches(session: Session, model: str) -> float:
    """Compare the outputs of an image in a batch with the outputs of the image alone.

    Args:
        session: the network's programs and weights.
        model: key and name of the model, for the message.

    Returns:
        The largest norm of the differences of an output over the norm of the output.

    Raises:
        UsageError: the network fails with a batch, an output has another number of rows than the
            batch, depends on the other images, or differs between two calls.
    """
    classifier = session.classifier
    images = random_images(session)
    batch, alone = (
        run(session, images[:count], classifier.outputs, model) for count in (IMAGES, 1)
    )
    for name, several, one in zip(classifier.outputs, batch, alone, strict=True):
        found = [list(value.shape) for value in (several, one)]
        if [shape[:1] for shape in found] != [[IMAGES], [1]] or found[0][1:] != found[1][1:]:
            raise UsageError(
                f"{model}: the output {name} has the shape {found[0]} for {IMAGES} images and "
                f"{found[1]} for one image, expected one row per image",
                "Keep the dimension of the batch: do not squeeze, transpose or reduce the first "
                "axis.",
            )
    error = largest_difference(alone, [value[:1] for value in batch])
    if not error <= MAX_ERROR:
        require_repeatable(session, images, alone, model)
        raise UsageError(
            f"{model}: the outputs of an image depend on the other images of its batch: relative "
            f"error {error:.2g} between a batch of {IMAGES} images and one image, expected "
            f"at most {MAX_ERROR:g}{origin(session, images)}",
            "Compute means, sums, softmax and norms over other axes than the first, which is the "
            "batch. Use the running statistics of batch norm in evaluation.",
        )
    return error


def require_repeatable(
    session: Session, images: np.ndarray, alone: list[np.ndarray], model: str
) -> None:
    """Check that the outputs of the first image are the same in a second call.

    Raises:
        UsageError: they are not.
    """
    again = run(session, images[:1], session.classifier.outputs, model)
    error = largest_difference(alone, again)
    if not error <= MAX_ERROR:
        raise UsageError(
            f"{model}: two calls of the network with the same image have different outputs: "
            f"relative error {error:.2g}, expected at most {MAX_ERROR:g}{origin(session, images)}",
            "Use random numbers only if self.training is true.",
        )


def largest_difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Return the largest :func:`difference` of the outputs of a model."""
    return max(difference(f, e) for f, e in zip(found, expected, strict=True))


def random_images(session: Session) -> np.ndarray:
    """Return ``IMAGES`` random images, float32 [N, C, H, W]."""
    images = np.random.default_rng(0).standard_normal((IMAGES, *session.input_shape))
    return images.astype("float32")


def run(
    session: Session, images: np.ndarray, names: list[str] | tuple[str, ...], model: str
) -> list[np.ndarray]:
    """Return values of the evaluation program.

    Raises:
        UsageError: Paddle cannot run a batch of this size.
    """
    try:
        with session.active():
            found = session.executor.run(
                session.classifier.evaluation, {IMAGE: images}, list(names)
            )
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"{model}: the network fails with a batch of {len(images)} images: {reason_of(error)}",
            "Export or write the network for any number of images: the first size of its input, "
            "and of each reshape, must be -1.",
        ) from error
    return [np.asarray(value) for value in found]


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative error of the values that are finite in both."""
    # Stage calibrate reports other values, and names the activations.
    finite = np.isfinite(found) & np.isfinite(expected)
    return relative_error(found[finite], expected[finite])


def origin(session: Session, images: np.ndarray) -> str:
    """Return text that names the first op whose output depends on the batch; empty without one."""
    program = session.classifier.evaluation
    names = values_of(program)
    batch, alone = (run(session, images[:count], names, "/model") for count in (IMAGES, 1))
    values = {name: (b, a) for name, b, a in zip(names, batch, alone, strict=True)}
    for op in program.global_block().ops:
        for name in op.output_arg_names:
            if name in values and depends(*values[name]):
                return f"; first after the op {op.type} ({place_of(op) or name})"
    return ""


def depends(batch: np.ndarray, alone: np.ndarray) -> bool:
    """Return whether the first rows of a value differ from the value of one image."""
    if batch.ndim == 0 or batch.shape[1:] != alone.shape[1:] or len(batch) < len(alone):
        return False
    return not difference(batch[: len(alone)], alone) <= MAX_ERROR


def values_of(program: Program) -> list[str]:
    """Return the floating-point values that a program's ops compute."""
    block = program.global_block()
    names = {name for op in block.ops for name in op.output_arg_names if block.has_var(name)}
    return sorted(
        name
        for name in names
        if block.var(name).dtype in FLOATS and not block.var(name).persistable
    )
