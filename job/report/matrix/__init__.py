"""Tables and plots that only the report of a matrix has."""
