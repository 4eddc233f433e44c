"""Rejects a manifest that would quantize a network whose weights are random by omission.

The check is not a rule of the manifest, because a run that ends after stage `prepare` needs no
weights.
"""

from job.errors import Fault, ManifestError
from job.manifest.load import entries
from job.manifest.spec import Manifest

_MESSAGE = (
    "expected weights, because /data has real images and the baseline is not trained. Set "
    "/model/weights or /model/pretrained, train with /baseline/train/epochs, or set "
    "/model/random_weights to true if random weights are intended"
)


def check_initial_weights(manifest: Manifest, source: str) -> None:
    """Check that each model has weights, is trained, or has random weights on purpose.

    Args:
        manifest: a manifest of one model or of a matrix.
        source: the manifest's name in messages.

    Raises:
        ManifestError: weights are missing; lists every model of a matrix.
    """
    faults = tuple(
        Fault(f"/matrix/{number}/set", f"/model/weights: {_MESSAGE}")
        for number, single in enumerate(entries(manifest))
        if not has_weights(single)
    )
    if not manifest.matrix and not has_weights(manifest):
        faults = (Fault("/model/weights", _MESSAGE),)
    if faults:
        raise ManifestError(source, faults)


def has_weights(manifest: Manifest) -> bool:
    """Return whether the weights of the FP32 model are not random, or random on purpose."""
    model = manifest.model
    given = model.weights is not None or model.inference_model is not None
    on_purpose = model.random_weights or manifest.data.format == "synthetic"
    return given or model.pretrained or on_purpose or manifest.baseline.train.has_steps
