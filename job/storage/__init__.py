"""Where a run is written."""
