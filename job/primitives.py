"""Which oneDNN primitives a model really runs, read from oneDNN's own log.

Format of a line: https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from job.errors import QuantizationError

COMPUTE = ("convolution", "inner_product", "matmul", "deconvolution")
INT8_TYPES = ("u8", "s8")
ISA_ORDER = (
    "sse41",
    "avx2",
    "avx2_vnni",
    "avx2_vnni_2",
    "avx512_core",
    "avx512_core_vnni",
    "avx512_core_bf16",
    "avx512_core_fp16",
    "avx512_core_amx",
    "avx512_core_amx_fp16",
)
# oneDNN's newer names of three of them, which its log uses:
# https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
ISA_ALIASES = {
    "avx10_1_512": "avx512_core_fp16",
    "avx10_1_512_amx": "avx512_core_amx",
    "avx10_1_512_amx_fp16": "avx512_core_amx_fp16",
}


@dataclass(frozen=True)
class Primitive:
    """One execution of a primitive.

    Attributes:
        kind: such as ``convolution``.
        implementation: such as ``brgconv:avx512_core_vnni``.
        data_type: of its source, such as ``u8``, ``s8``, ``f32``.
        weights_type: of its weights, or empty.
        milliseconds: of this execution.
    """

    kind: str
    implementation: str
    data_type: str
    weights_type: str
    milliseconds: float

    @property
    def is_int8(self) -> bool:
        """Whether both operands are 8-bit integers."""
        return self.data_type in INT8_TYPES and self.weights_type == "s8"

    @property
    def isa(self) -> str:
        """Instruction set of the implementation, such as ``avx512_core_vnni``; may be empty."""
        name = self.implementation.rpartition(":")[2]
        name = ISA_ALIASES.get(name, name)
        return name if name in ISA_ORDER else ""


def parse(lines: Iterable[str]) -> list[Primitive]:
    """The executed primitives in a log of ``ONEDNN_VERBOSE=1``."""
    found = []
    for line in lines:
        fields = line.rstrip("\n").split(",")
        if len(fields) < 11 or "exec" not in fields[:4] or not fields[0].endswith("verbose"):
            continue
        start = fields.index("exec") + 1
        kind, implementation, descriptors = fields[start + 1], fields[start + 2], fields[start + 4]
        types = {
            name: rest.split(":")[0]
            for name, _, rest in (part.partition(":") for part in descriptors.split())
        }
        found.append(
            Primitive(
                kind=kind,
                implementation=implementation,
                data_type=types.get("src", types.get("src0", "")),
                weights_type=types.get("wei", ""),
                milliseconds=float(fields[-1]),
            )
        )
    return found


def last_run(primitives: list[Primitive], runs: int) -> list[Primitive]:
    """The primitives of one run in the steady state: the last ``1/runs`` of a repeated log.

    The first run also reorders weights; later ones repeat the same sequence.
    """
    computing = [i for i, primitive in enumerate(primitives) if primitive.kind in COMPUTE]
    if not computing:
        return []
    per_run = len(computing) // runs
    start = computing[-per_run]
    return primitives[start:]


def isa(primitives: Iterable[Primitive]) -> str:
    """The highest instruction set among convolutions and matrix products; may be empty."""
    seen = {p.isa for p in primitives if p.kind in COMPUTE and p.isa}
    return max(seen, key=ISA_ORDER.index) if seen else ""


def summarize(primitives: Iterable[Primitive]) -> list[dict[str, object]]:
    """Count and milliseconds per kind, implementation and data type, the slowest first."""
    rows: dict[tuple[str, str, str], list[float]] = {}
    for p in primitives:
        row = rows.setdefault((p.kind, p.implementation, p.data_type), [0, 0.0])
        row[0] += 1
        row[1] += p.milliseconds
    return [
        {
            "kind": kind,
            "implementation": implementation,
            "data_type": data_type,
            "count": int(count),
            "milliseconds": round(milliseconds, 4),
        }
        for (kind, implementation, data_type), (count, milliseconds) in sorted(
            rows.items(), key=lambda item: -item[1][1]
        )
    ]


def trace(prefix: Path, mode: str, input_shape: tuple[int, ...], runs: int = 4) -> list[Primitive]:
    """Run a saved model in a fresh process on one thread and read what it executed.

    Args:
        prefix: of the saved model.
        mode: as for ``job.engine.predictor.configuration``.
        input_shape: (channels, height, width); one image is run.
        runs: how often; the last run counts.

    Raises:
        QuantizationError: the model does not run.
    """
    command = [
        sys.executable,
        "-m",
        "job.engine.run_once",
        str(prefix),
        mode,
        ",".join(map(str, input_shape)),
        str(runs),
    ]
    # oneDNN reads these when its library loads, so it must be a fresh process.
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise QuantizationError(f"{prefix} does not run in Paddle Inference ({mode}):\n{tail}")
    return last_run(parse(done.stdout.splitlines()), runs)
