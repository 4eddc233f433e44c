"""Trains and saves the FP32 model."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.engine.inference.saved_model import NETWORK, PREFIX
from job.engine.training import loop as training
from job.engine.training import programs
from job.engine.training.checkpoints import write_arrays
from job.engine.training.computed_weights import store_computed_weights
from job.engine.training.session import Recipe, Session, run_recipe
from job.events import Events

if TYPE_CHECKING:
    from job.data.loader import Loader

WEIGHTS = "weights.npz"


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


def model_bytes(folder: Path) -> int:
    """Return the size of a saved model in bytes."""
    return sum(
        (folder / f"{PREFIX}{suffix}").stat().st_size for suffix in (".pdmodel", ".pdiparams")
    )
