"""The installed Paddle as other packages need it: its version, its oneDNN log, a bare predictor."""

import ctypes
from pathlib import Path
from typing import Any

import paddle
from paddle import inference

VERSION: str = paddle.__version__


def open_predictor(config: inference.Config) -> Any:
    """Load the model of a configuration."""
    return inference.create_predictor(config)


def set_onednn_log(*, on: bool) -> None:
    """Switch the log of executed primitives on or off, whatever ONEDNN_VERBOSE says."""
    (library,) = (Path(paddle.__file__).parent / "libs").glob("libdnnl.so*")
    # https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
    ctypes.CDLL(str(library)).dnnl_set_verbose(int(on))
