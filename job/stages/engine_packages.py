"""The engines besides Paddle that INT8 models can be made for and run in.

Each is an extra of its own. Nothing here imports them: to look at what is installed costs nothing.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from job.errors import MachineError

# Engine of /benchmark/engines, and stage -> the packages that it needs, named as they are imported.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx", "paddle2onnx"),
}


def check_installed(engines: Iterable[str]) -> None:
    """Make sure that all engines that are asked for are there.

    Raises:
        MachineError: one is not; it names the command that installs it.
    """
    for engine in engines:
        missing = [name for name in PACKAGES.get(engine, ()) if find_spec(name) is None]
        if missing:
            raise MachineError(
                f"/benchmark/engines: {engine} needs packages that are not installed: "
                f"{', '.join(missing)}",
                f"Install them with `make engines` or `pip install 'job[{engine}]'`, or leave "
                f"{engine} out.",
            )
