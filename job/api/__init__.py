"""The Python API, which the command line uses too: run and validate manifests, read reports."""
