"""The environment of a process that imports Paddle."""

import os
import sys
from pathlib import Path


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a stage's process: what must be set before paddle is imported."""
    count = str(threads)
    return os.environ | {
        # The child finds every module where this process found it.
        "PYTHONPATH": os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path),
        "PYTHONHASHSEED": "0",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        # PaddleSlim builds the legacy program, and oneDNN INT8 needs its file format.
        "FLAGS_enable_pir_api": "0",
        "GLOG_logtostderr": "1",
        "GLOG_v": "0",
    }
