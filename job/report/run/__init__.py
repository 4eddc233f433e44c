"""Tables and plots that only the report of a run has."""
