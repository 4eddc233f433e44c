"""``python -m job`` is the command ``job``."""

from job.cli.main import main

if __name__ == "__main__":
    main()
