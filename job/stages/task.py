"""The task of a manifest."""

from job.manifest import Manifest
from job.tasks.classification import CLASSIFICATION
from job.tasks.task import Task


def task_of(manifest: Manifest) -> Task:  # noqa: ARG001
    """Return what is specific to the manifest's task. Classification is the only one."""
    return CLASSIFICATION
