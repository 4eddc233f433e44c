"""Imports Paddle Inference without the rest of Paddle.

``import paddle`` takes 1.4 s of CPU time, and a benchmark starts a process for each model in each
round. Paddle Inference needs the library ``libpaddle`` and the package ``paddle.inference`` only.
"""

import sys
from importlib import import_module
from pathlib import Path

from job.engine.inference.package_code import skip_package_code


def import_inference_only() -> None:
    """Let this process import ``paddle.inference`` without executing other parts of Paddle.

    Call this function before anything imports Paddle, in a process that runs saved models only,
    because other parts of Paddle cannot be imported afterwards.

    Raises:
        MachineError: Paddle is not installed.
    """
    skip_package_code("paddle", "paddle.base")
    library = import_module("paddle.base.libpaddle")
    # Of the module paddle.base.core, Paddle Inference needs the names of the library, and the
    # folder from which the library loads other libraries.
    folder = Path(str(sys.modules["paddle"].__file__)).parent / "libs"
    library._set_paddle_lib_path(str(folder))
    sys.modules["paddle.base.core"] = sys.modules["paddle.base"].core = library
