"""The packages of the engines other than Paddle's oneDNN.

OpenVINO and ONNX Runtime are extras of this package. This module does not import engines, so that
the check for installed packages is fast.
"""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from job.errors import MachineError
from job.stages.stage import StageOutput

PADDLE_OPENVINO = "paddle_openvino"
# Paddle's package contains this library if it has the OpenVINO engine for CPUs.
PLUGIN = "libs/libopenvino_intel_cpu_plugin.so"
# Key in the record of an engine's stage: why the stage wrote no model, or null.
REJECTED = "rejected"
# Engine of /benchmark/engines, also the name of its stage -> import names of its packages.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    PADDLE_OPENVINO: (),
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx", "paddle2onnx"),
}


def is_missing(engine: str) -> bool:
    """Return whether the installed Paddle lacks an engine that is part of Paddle.

    False without Paddle: such a machine runs no stage, and plans like a machine with Paddle.
    """
    spec = find_spec("paddle") if engine == PADDLE_OPENVINO else None
    places = (spec.submodule_search_locations if spec else None) or ()
    return bool(places) and not any((Path(place) / PLUGIN).is_file() for place in places)


def built(inputs: Mapping[str, StageOutput]) -> list[str]:
    """Return the engines for which there is a model, in the order of ``PACKAGES``.

    Args:
        inputs: outputs of stages by name.
    """
    return [name for name in PACKAGES if name in inputs and not inputs[name].record.get(REJECTED)]


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
                f"Install the packages with `make engines`, or with `pip install '.[{engine}]'` in "
                f"the source folder; or remove {engine} from /benchmark/engines.",
            )
