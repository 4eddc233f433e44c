"""Renders a manifest as a Kubernetes Job, from ``k8s/base/job.yaml`` and the options."""

from job.kubernetes.options import PodOptions
from job.kubernetes.render import objects, render

__all__ = ["PodOptions", "objects", "render"]
