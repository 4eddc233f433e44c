"""The installed Paddle version, its predictor and its oneDNN log, for other packages."""

import ctypes
from pathlib import Path
from typing import Any

import paddle
from paddle import inference
from paddle.version import full_version

VERSION: str = full_version


def open_predictor(config: inference.Config) -> Any:
    """Load the model that a configuration describes."""
    return inference.create_predictor(config)


def set_onednn_log(*, on: bool) -> None:
    """Switch oneDNN's log of executed primitives on or off, regardless of ONEDNN_VERBOSE."""
    (library,) = (Path(paddle.__file__).parent / "libs").glob("libdnnl.so*")
    # https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
    ctypes.CDLL(str(library)).dnnl_set_verbose(int(on))
