"""Environment variables of a process that imports Paddle."""

import os
import sys
from pathlib import Path


def environment(threads: int) -> dict[str, str]:
    """Return the variables that must be set before a child process imports Paddle.

    Args:
        threads: number of threads of the math libraries.

    Returns:
        The environment of this process with those variables.
    """
    count = str(threads)
    return os.environ | {
        # The child must import every module from the same place as this process.
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "PYTHONHASHSEED": "0",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        # PaddleSlim builds legacy programs, and oneDNN INT8 needs the legacy file format.
        "FLAGS_enable_pir_api": "0",
        "GLOG_logtostderr": "1",
        "GLOG_v": "0",
    }
