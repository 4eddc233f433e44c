"""Sizes of a pod's scratch volume and of its use of the node's disk.

The kubelet evicts a pod that exceeds one of these sizes. The eviction counts as a failed attempt.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from job.errors import UsageError
from job.manifest import Manifest
from job.manifest.spec import BUILT_IN, data_file, expanded
from job.pipeline.fetch_inputs import reads_s3

_GIB = 1 << 30
# The image's root file system is read-only, so k8s/base/job.yaml sets JOB_SCRATCH to this volume.
MOUNT = "/scratch"
# Models, checkpoints and temporary files.
_FILES_GIB = 20
# Container logs and the files that the runtime writes.
_LOGS_GIB = 1
# Each process that writes to the cache can exceed its limit by this share.
_OVERSHOOT = 0.02
_FLOAT_BYTES = 4
# Assumed number of test images if they are not on this machine: ImageNet's.
_TEST_IMAGES = 50_000

_UNITS = {"M": 10**6, "G": 10**9, "T": 10**12, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def set_scratch(pod: Mapping[str, Any], singles: Sequence[Manifest], storage: str | None) -> None:
    """Set the size of the scratch volume, and the pod's limit of the node's disk.

    Args:
        pod: the pod's ``spec``.
        singles: the manifest of each model.
        storage: size of the scratch volume; None computes it from the manifests.

    Raises:
        UsageError: the cache of inputs from S3 does not fit, or ``storage.scratch`` names a folder
            that the pod cannot write to.
    """
    for single in singles:
        _check_scratch(single)
    size = storage or f"{scratch_gib(singles)}Gi"
    cache = cache_gib(singles)
    if byte_count(size) < cache * _GIB:
        raise UsageError(
            f"--storage: expected at least {math.ceil(cache)}Gi for the cache of inputs from S3 "
            f"(/storage/cache_gib is {singles[0].storage.cache_gib:g}), found {size}",
            "Raise --storage, or add --set storage.cache_gib=N with a smaller limit.",
        )
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    volumes["scratch"]["emptyDir"]["sizeLimit"] = size
    total = sum(
        byte_count(each["emptyDir"]["sizeLimit"]) for each in volumes.values() if "emptyDir" in each
    )
    for limits in pod["containers"][0]["resources"].values():
        limits["ephemeral-storage"] = f"{math.ceil(total / _GIB) + _LOGS_GIB}Gi"


def scratch_gib(singles: Sequence[Manifest]) -> int:
    """Return the size of the scratch volume that a pod needs for any of the models, in GiB.

    It is the sum of the cache of inputs from S3, the packed images of an output in S3, and a fixed
    size for models, checkpoints and temporary files.
    """
    packed = max(map(_packed_gib, singles))
    return math.ceil(cache_gib(singles) + packed) + _FILES_GIB


def cache_gib(singles: Sequence[Manifest]) -> float:
    """Return the largest size of the cache of inputs from S3, in GiB; 0 if no input is in S3.

    The models of a matrix share the settings of the storage.
    """
    writers = 1 + max(single.data.workers for single in singles)
    used = any(map(reads_s3, singles))
    return singles[0].storage.cache_gib * (1 + _OVERSHOOT * writers) if used else 0.0


def byte_count(quantity: str) -> int:
    """Return the number of bytes of a Kubernetes quantity, such as ``20Gi``."""
    number, unit = re.fullmatch(r"([0-9]+)([A-Za-z]+)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * _UNITS[unit]


def _packed_gib(manifest: Manifest) -> float:
    """Return the size of the packed images in the scratch volume, in GiB."""
    if manifest.data.format in BUILT_IN or not manifest.output.startswith("s3://"):
        return 0.0
    images = _test_images(manifest) + manifest.data.calibration_images
    return images * math.prod(manifest.model.input_shape) * _FLOAT_BYTES / _GIB


def _test_images(manifest: Manifest) -> int:
    """Return the number of test images in a list or in class folders on this machine.

    Also counts comments and other files, so the number is never too small.
    """
    data = manifest.data
    name = data.val_list or data.val_dir
    location = data_file(data.root, name) if name else None
    if location is None or manifest.uri(location) is not None:
        return _TEST_IMAGES
    path = manifest.base / expanded(location)
    if path.is_file():
        with path.open("rb") as file:
            return sum(1 for _ in file)
    return sum(len(files) for _, _, files in os.walk(path)) if path.is_dir() else _TEST_IMAGES


def _check_scratch(manifest: Manifest) -> None:
    """Reject a scratch folder outside the scratch volume.

    A folder on a claim may be on a network file system, which lacks the file locks and the atomic
    renames that the cache needs.
    """
    scratch = manifest.storage.scratch
    if scratch is not None and not f"{scratch}/".startswith(f"{MOUNT}/"):
        raise UsageError(
            f"/storage/scratch: expected null or a folder in {MOUNT}, found {scratch!r}",
            f"Add --set storage.scratch=null. The pod has its own scratch volume at {MOUNT}.",
        )
