"""The packages of the engines other than Paddle.

Each engine is an extra of this package. This module does not import them, so that the check for
installed packages is fast.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from job.errors import MachineError

# Engine of /benchmark/engines, also the name of its stage -> import names of its packages.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx", "paddle2onnx"),
}


def check_installed(engines: Iterable[str]) -> None:
    """Check that the packages of the given engines are installed.

    Raises:
        MachineError: a package is missing; the hint has the command that installs it.
    """
    for engine in engines:
        missing = [name for name in PACKAGES.get(engine, ()) if find_spec(name) is None]
        if missing:
            raise MachineError(
                f"/benchmark/engines: {engine} needs packages that are not installed: "
                f"{', '.join(missing)}",
                f"Install them with `make engines` or `pip install 'job[{engine}]'`, or remove "
                f"{engine} from /benchmark/engines.",
            )
