"""Trains and saves the FP32 model."""

import pickle
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from job.engine.inference.paddle_format import attribute, read_program
from job.engine.inference.predictor import NATIVE, ONEDNN, Predictor, configuration
from job.engine.inference.saved_model import NETWORK, PREFIX
from job.engine.training import loop as training
from job.engine.training import programs
from job.engine.training.checkpoints import write_arrays
from job.engine.training.computed_weights import store_computed_weights
from job.engine.training.session import Recipe, Session, run_recipe
from job.engine.training.transposed_weights import TRANSPOSED
from job.errors import QuantizationError
from job.events import Events
from job.stats import relative_error
from job.tasks.task import flat

if TYPE_CHECKING:
    from job.data.loader import Loader

WEIGHTS = "weights.npz"
# Rounding differs by about 1e-6. Deep networks with random weights multiply it.
MAX_KERNEL_ERROR = 1e-2
# Op types whose results oneDNN was seen to compute wrong behind a convolution.
NEAREST = ("nearest_interp", "nearest_interp_v2")


def train(
    session: Session,
    recipe: Recipe,
    *,
    loader: "Loader",
    selection: Path,
    out: Path,
    events: Events,
) -> dict[str, Any]:
    """Train by a recipe; the session then contains the best weights.

    Args:
        session: classifier with its initial weights.
        recipe: settings of the training.
        loader: training batches.
        selection: packed file of the selection split.
        out: folder for checkpoints, metrics and ``best.npz``.
        events: receives progress and messages.

    Returns:
        The report's training record; empty if the training stopped before its last step.
    """
    classifier = session.classifier
    with session.active():
        rate = recipe.add_optimizer(classifier)
        initial = programs.read_variables(
            session.scope, programs.persistables(classifier.evaluation)
        )
        session.executor.run(classifier.startup)
        programs.write_variables(session.scope, initial)
        trainer = training.Trainer(
            program=classifier.train,
            loss=classifier.loss,
            learning_rate=rate,
            evaluation=classifier.evaluation,
            outputs=classifier.outputs,
            feeds=session.feeds,
            scope=session.scope,
            executor=session.executor,
            task=session.task,
            criterion=session.task.primary.key,
        )
        return run_recipe(
            session,
            trainer,
            recipe,
            name="baseline",
            loader=loader,
            selection=selection,
            out=out,
            events=events,
        )


def export(session: Session, out: Path) -> int:
    """Write the inference model and its weights to ``out``.

    ``weights.npz`` contains every variable by its name in the program, for later stages.
    ``weights.pdparams`` contains the same values by the network's names, for ``/model/weights``.

    Returns:
        The size of the inference model in bytes.
    """
    classifier = session.classifier
    # A killed attempt can have left it.
    (out / NETWORK).unlink(missing_ok=True)
    with session.active():
        program = store_computed_weights(classifier.evaluation, session.scope, session.executor)
        programs.save_inference_model(program, out / PREFIX, classifier.outputs, session.executor)
    values = programs.read_variables(session.scope, programs.persistables(classifier.evaluation))
    write_arrays(out / WEIGHTS, values)
    named = classifier.for_network(values)
    with (out / "weights.pdparams").open("wb") as file:
        pickle.dump(named, file, protocol=4)
    return model_bytes(out)


def check_kernels(out: Path, input_shape: tuple[int, int, int]) -> float:
    """Compare the outputs of the FP32 model in oneDNN and in Paddle's native kernels.

    For some networks, Paddle's oneDNN passes change the result, without an error.

    Args:
        out: folder of the model.
        input_shape: (channels, height, width).

    Returns:
        The norm of the differences over the norm of the native outputs.

    Raises:
        QuantizationError: the outputs differ.
    """
    images = np.random.default_rng(0).standard_normal((2, *input_shape)).astype("float32")
    native, onednn = (
        flat(Predictor(configuration(out / PREFIX, mode, threads=1)).outputs(images))
        for mode in (NATIVE, ONEDNN)
    )
    error = relative_error(onednn, native)
    if not error <= MAX_KERNEL_ERROR:
        raise QuantizationError(
            f"Paddle's oneDNN kernels compute other FP32 scores of this network than its native "
            f"kernels: relative error {error:.2g}, expected at most {MAX_KERNEL_ERROR:g}",
            f"An INT8 model would be wrong, too. {likely_causes(out)}",
        )
    return error


def likely_causes(out: Path) -> str:
    """Name the parts of a model for which wrong results of oneDNN were seen.

    Args:
        out: folder of the model.
    """
    ops = read_program(out / f"{PREFIX}.pdmodel").blocks[0].ops
    readers: dict[str, list[str]] = defaultdict(list)
    for op in ops:
        for slot in op.inputs:
            if slot.parameter == "Filter":
                readers[slot.arguments[0]].append(op.outputs[0].arguments[0])
    causes = [
        f"the weight {name}, which the convolutions {', '.join(outputs)} share: give each "
        "convolution a weight of its own"
        for name, outputs in readers.items()
        if len(outputs) > 1
    ]
    causes += [
        f"the nearest interpolation {op.outputs[0].arguments[0]}: use another mode"
        for op in ops
        if op.type in NEAREST
    ]
    causes += [
        f"the transposed matrix product {op.outputs[0].arguments[0]}: transpose the operand instead"
        for op in ops
        if op.type in TRANSPOSED and attribute(op, TRANSPOSED[op.type])
    ]
    if not causes:
        return "Report this as a bug, with the network and the output of `job doctor`."
    return f"Parts of this network for which this was seen: {'; '.join(causes)}."


def model_bytes(folder: Path) -> int:
    """Return the size of a saved model in bytes."""
    return sum(
        (folder / f"{PREFIX}{suffix}").stat().st_size for suffix in (".pdmodel", ".pdiparams")
    )
