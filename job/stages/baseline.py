"""baseline: writes the FP32 model, with given weights, trained weights, or both."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.data.sources import BadImage
from job.events import Events
from job.manifest import Manifest
from job.stages.dataset import data_files, training_loader, training_part
from job.stages.decoding import add_to_fp32
from job.stages.network import model_files, network, recipe
from job.stages.settings import settings_of, training_settings
from job.stages.stage import SELECTION, Record, Stage, StageFunction, StageOutput


def run(manifest: Manifest, inputs: Mapping[str, StageOutput], out: Path, events: Events) -> Record:
    """Write model.pdmodel, model.pdiparams, weights.npz and weights.pdparams."""
    from job.engine.training import baseline
    from job.engine.training.kernel_check import check_kernels
    from job.engine.training.session import open_session

    train = manifest.baseline.train
    session = open_session(**network(manifest, train))
    load_weights(manifest, session, events.message)
    check_network(manifest, session)
    training = None
    bad: list[BadImage] = []
    if trains(manifest):
        part = training_part(manifest, out)
        with training_loader(manifest, part, train, events, bad) as loader:
            training = baseline.train(
                session,
                recipe(train),
                loader=loader,
                selection=inputs["prepare"].path / SELECTION,
                out=out,
                events=events,
            )
        if events.stopping:
            return {}
    bytes_written = baseline.export(session, out)
    check_kernels(session, out)
    return {
        **add_to_fp32(manifest, inputs["prepare"].path, out),
        "training": training,
        "bytes": bytes_written,
        "seed": train.seed,
        "bad_images": [{"path": image.path, "reason": image.reason} for image in bad],
    }


def load_weights(manifest: Manifest, session: Any, say: Callable[..., None]) -> None:
    """Load the weights that the manifest names into the session.

    Args:
        manifest: names the weights.
        session: the engine's session.
        say: receives messages, as ``Events.message``.
    """
    from job.engine.training import random_weights
    from job.engine.training.network_weights import load_weights as load
    from job.engine.training.network_weights import published_weights

    model = manifest.model
    if model.weights is None and not model.pretrained:
        if model.inference_model:
            return
        if manifest.data.format == "synthetic":
            random_weights.draw(session, manifest.baseline.train.seed)
        elif not trains(manifest):
            # The code of a callable may have loaded weights.
            if model.name:
                random_weights.draw(session, manifest.baseline.train.seed)
            say("the network has random weights, because model.random_weights is true", "warning")
        return
    path = manifest.path(model.weights) if model.weights else published_weights(str(model.name))
    missing, unused = load(
        session, path, sha256=model.weights_sha256, reset_classifier=model.reset_classifier
    )
    if missing:
        say(f"weights {path}: {', '.join(missing)} keep their initial values (reset_classifier)")
    if unused:
        say(f"weights {path}: {', '.join(unused)} are not used, because the network lacks them")


def early_check(manifest: Manifest) -> StageFunction | None:
    """Return a check of the network and its weights, unless the data is prepared in a second."""
    return None if manifest.data.format in ("digits", "synthetic") else check


def check(
    manifest: Manifest,
    inputs: Mapping[str, StageOutput],  # noqa: ARG001
    out: Path,  # noqa: ARG001
    events: Events,  # noqa: ARG001
) -> Record:
    """Build the network and load its weights; write nothing."""
    from job.engine.training.session import open_session

    session = open_session(**network(manifest, manifest.baseline.train))
    # The stage itself sends the messages.
    load_weights(manifest, session, lambda *_: None)
    check_network(manifest, session)
    return {}


def check_network(manifest: Manifest, session: Any) -> None:
    """Check that no weight is NaN, that training uses all weights, and what a network computes.

    A user's network must treat each image alone, and compute the same as in eager execution.
    The outputs of exported detectors need not have one row per image.
    """
    from job.engine.training.batch_check import check_batches
    from job.engine.training.eager_check import check_against_eager
    from job.engine.training.program_checks import require_numbers, require_trainable

    model = manifest.model
    require_numbers(session.classifier.evaluation, session.scope)
    if trains(manifest) or manifest.trains_quantized:
        require_trainable(session.classifier)
    if model.name is None and manifest.task != "detection":
        key = "callable" if model.callable else "inference_model"
        check_batches(session, f"/model/{key}: {model.callable or model.inference_model}")
    if model.callable:
        check_against_eager(session, model.callable, model.classes)


def trains(manifest: Manifest) -> bool:
    """Return whether this stage trains the baseline."""
    return manifest.baseline.train.has_steps


def settings(manifest: Manifest) -> Mapping[str, Any]:
    """Return the settings that can change the FP32 model."""
    model = settings_of(manifest.model, "weights", "inference_model", "random_weights")
    train = manifest.baseline.train
    if not trains(manifest):
        # The seed initializes weights that no file sets.
        return {
            "model": model,
            "baseline": {"train": {"seed": train.seed}},
            "task": manifest.task,
            "detection": {"anchors": manifest.detection.anchors},
        }
    data = settings_of(manifest.data, "root")
    return {
        "model": model,
        "baseline": {"train": settings_of(train)},
        "data": data,
        **training_settings(manifest),
    }


def files(manifest: Manifest) -> tuple[Path, ...]:
    """Return the files of weights and code, and of training images if the stage trains."""
    return (*model_files(manifest), *(data_files(manifest) if trains(manifest) else ()))


STAGE = Stage("baseline", "fp32", ("prepare",), settings, files, run, early_check=early_check)
