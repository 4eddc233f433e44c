"""``python -m job`` is the command ``job``."""

from job.cli import main

if __name__ == "__main__":
    main()
