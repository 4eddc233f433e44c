"""Loads the weights of files into networks."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paddle

from job.engine.training import programs
from job.engine.training.session import Session
from job.engine.weights.detector import match_detector
from job.engine.weights.match import match, read_weights
from job.engine.weights.torch_names import for_paddle
from job.errors import DataError

# Paddle's keys for the published weights of networks that have several widths.
PUBLISHED_AS = {
    "mobilenet_v1": "mobilenetv1_1.0",
    "mobilenet_v2": "mobilenetv2_1.0",
    "mobilenet_v3_large": "mobilenet_v3_large_x1.0",
    "mobilenet_v3_small": "mobilenet_v3_small_x1.0",
}


class Unmatched(NamedTuple):
    """Weights that did not match.

    Attributes:
        missing: weights of the network that keep their initial values.
        unused: weights of the file that the network does not have. Of a classifier, they are not
            listed.
    """

    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_weights(
    session: Session, path: Path, *, sha256: str | None, reset_classifier: bool
) -> Unmatched:
    """Load a file of weights into a session.

    A ``.npz`` file may also use the names of the program's variables, as ``weights.npz`` of a run.

    Args:
        session: the network.
        path: the file.
        sha256: expected SHA-256 checksum, hexadecimal; None skips the check.
        reset_classifier: keep the initial values of the last layer, or of a detector's heads, if
            its shape differs.

    Returns:
        The weights that did not match.

    Raises:
        DataError: the file is missing, corrupt or of another model, or has another checksum.
    """
    classifier = session.classifier
    names, block = classifier.weight_names, classifier.train.global_block()
    wanted = {
        key: tuple(block.var(name).shape)[:: -1 if name in classifier.transposed else 1]
        for key, name in names.items()
    }
    read = read_weights(path, sha256)
    arrays = read.arrays
    if set(names.values()) <= arrays.keys():
        named = classifier.for_network(arrays)
    else:
        named = for_paddle(arrays, wanted, is_torch=read.is_torch)
    given, unused = matched(session, named, wanted, str(path), reset=reset_classifier)
    initial = programs.read_variables(session.scope, [names[key] for key in given])
    values = {
        name: classifier.turned(name, given[key]).astype(initial[name].dtype)
        for key, name in names.items()
        if key in given
    }
    programs.write_variables(session.scope, values)
    return Unmatched(tuple(key for key in names if key not in given), unused)


def matched(
    session: Session,
    named: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    source: str,
    *,
    reset: bool,
) -> tuple[Mapping[str, np.ndarray], tuple[str, ...]]:
    """Return the weights of a file that a network uses, and the names of the others.

    Args:
        session: the network.
        named: arrays by the names of the file.
        wanted: expected shape of each weight.
        source: the file, for messages.
        reset: omit a last layer whose shape differs.

    Raises:
        DataError: a weight is missing or has another shape.
    """
    if not session.task.heads:
        return match(named, wanted, source=source, reset_classifier=reset), ()
    found = match_detector(named, wanted, source=source, reset_heads=reset)
    return found.arrays, found.unused


def published_weights(name: str) -> Path:
    """Download Paddle's published ImageNet weights of a network, or find them in the cache.

    Args:
        name: name of a network with published weights, see ``UNPUBLISHED`` in job.manifest.rules.

    Returns:
        The path of the ``.pdparams`` file.

    Raises:
        DataError: the download failed.
    """
    factory = getattr(paddle.vision.models, name)
    published = importlib.import_module(factory.__module__).model_urls
    url, digest = published[PUBLISHED_AS.get(name, name)]
    try:
        return Path(paddle.utils.download.get_weights_path_from_url(url, digest))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"/model/pretrained: cannot download {url}: {error}",
            "Download the file on a machine with internet access, and set /model/weights to it. To "
            "train from random weights instead, set /model/pretrained to false, "
            "/baseline/train/epochs to 30 and /baseline/train/base_lr to 0.05.",
        ) from error
