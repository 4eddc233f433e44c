"""Lets ``python -m job`` run the command ``job``."""

from job.cli.main import main

if __name__ == "__main__":
    main()
