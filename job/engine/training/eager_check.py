"""Compares a user's network as a static program with the same network in eager execution."""

import math

import numpy as np
import paddle
from paddle import static

from job.engine.training import network_programs, programs, zoo
from job.engine.training.batch_check import difference
from job.engine.training.layer_differences import first_different_layer
from job.engine.training.objective import Labels
from job.engine.training.programs import Classifier
from job.engine.training.session import Session, shape_errors
from job.engine.training.tracing import (
    code_errors,
    in_place_functions,
    logits_of,
    untranslated,
)
from job.errors import UsageError
from job.stats.closeness import log_probabilities

# Not 1, because code that assumes a batch of one image would not be noticed.
IMAGES = 3
# Rounding differs by about 1e-6, because the order of sums differs.
MAX_ERROR = 1e-3
NAMED = 3


def check_against_eager(session: Session, target: str, classes: int) -> float:
    """Compare the scores of random images.

    Args:
        session: the network's programs and weights.
        target: ``package.module:function`` of the network.
        classes: number of classes.

    Returns:
        The norm of the differences over the norm of the eager scores.

    Raises:
        UsageError: the scores differ.
    """
    images = np.random.default_rng(0).standard_normal((IMAGES, *session.input_shape))
    images = images.astype("float32")
    classifier = session.classifier
    with session.active():
        (scores,) = session.executor.run(
            classifier.evaluation, {programs.IMAGE: images}, [classifier.logits]
        )
    weights = programs.read_variables(session.scope, list(classifier.weight_names.values()))
    named = classifier.for_network(weights)
    with shape_errors(session.input_shape), code_errors(target):
        expected = eager_scores(target, classes, named, images)
    error = math.inf
    if scores.shape == expected.shape:
        # A final softmax is not part of the program.
        probabilities = np.exp(log_probabilities(scores.astype(np.float64)))
        error = min(difference(each, expected) for each in (scores, probabilities))
    if not error <= MAX_ERROR:
        place = first_different_layer(
            lambda: zoo.from_callable(target, classes=classes), classes, named, images, MAX_ERROR
        )
        raise UsageError(
            f"/model/callable: {target} computes other scores as a static program than in eager "
            f"execution: relative error {error:.2g}, expected at most {MAX_ERROR:g}"
            f"{'; ' if place else ''}{place}",
            in_place_hint(target, classes, session.input_shape)
            or unregistered_hint(classifier, target, classes)
            or "The program is built by one call of the network. Remove code that depends on the "
            "values or the number of images, and random numbers in evaluation. If the constructor "
            "draws random numbers, store them with register_buffer.",
        )
    return error


def in_place_hint(target: str, classes: int, input_shape: tuple[int, int, int]) -> str:
    """Return how to replace the functions that change a tensor in place; empty without any."""

    def build() -> None:
        with static.program_guard(static.Program(), static.Program()):
            network_programs.trace(
                lambda: zoo.from_callable(target, classes=classes),
                input_shape,
                Labels(classes, 0.0),
                training=False,
                in_place="always",
            )

    names = in_place_functions(build)
    if not names:
        return ""
    return (
        f"The network calls {', '.join(names)}, which cannot change a tensor in place in a static "
        f"program. Use the result instead: x = {names[0].removesuffix('_')}(x)."
    )


def unregistered_hint(classifier: Classifier, target: str, classes: int) -> str:
    """Return how to register the weights that the network's state dict lacks; empty without any."""
    paddle.disable_static()
    try:
        registered = zoo.from_callable(target, classes=classes).state_dict().keys()
    finally:
        paddle.enable_static()
    late = [key for key in classifier.weight_names if key not in registered]
    known = set(classifier.weight_names.values())
    trained = classifier.evaluation.all_parameters()
    unknown = [p.name for p in trained if p.trainable and p.name not in known]
    if not late and not unknown:
        return ""
    return (
        f"The constructor of the network does not register the weights "
        f"{', '.join([*late, *unknown][:NAMED])}. Create all layers in the constructor, and store "
        "them in attributes or in nn.LayerList, not in Python lists."
    )


def eager_scores(
    target: str, classes: int, weights: dict[str, np.ndarray], images: np.ndarray
) -> np.ndarray:
    """Return the scores [N, classes] of a network in eager execution.

    Args:
        target: ``package.module:function`` of the network.
        classes: number of classes.
        weights: values by the network's names.
        images: float32 [N, C, H, W].
    """
    paddle.disable_static()
    try:
        network = zoo.from_callable(target, classes=classes)
        network.eval()
        for key, tensor in network.state_dict().items():
            if key in weights:
                tensor.set_value(weights[key])
        with paddle.no_grad(), untranslated():
            return np.asarray(logits_of(network(paddle.to_tensor(images))).numpy())
    finally:
        paddle.enable_static()
