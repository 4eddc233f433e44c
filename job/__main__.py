"""Entry point of ``python -m job``, which is the same as the command ``job``."""

from job.cli.main import main

if __name__ == "__main__":
    main()
