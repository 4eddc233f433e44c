"""From a manifest to a finished run: plan, stages, report."""
