"""Reads the programs that Paddle 3 saves as ``.json`` (PIR), without Paddle.

Keys of the file: ``#`` kind, ``A`` attributes, ``I`` inputs, ``O`` outputs, ``%`` number of a
value, ``TT`` its type, ``N`` name, ``AT`` typed value, ``D`` data. The kind of an op begins with
the number of its dialect. The kind ``p`` is a parameter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import DataError

SUFFIX = ".json"
PARAMETER = "builtin.parameter"
# Number of a missing optional input.
ABSENT = 0
DIALECTS = {"0": "builtin", "1": "pd_op", "2": "cf", "3": "custom_op", "4": "dist"}
# How to save a network in the format of Paddle 2.
EXPORT_AGAIN = (
    "Export the network again with the environment variable FLAGS_enable_pir_api=0, which must be "
    "set before Python starts. paddle.jit.save and paddle.static.save_inference_model then write "
    "a .pdmodel file."
)
_DATA_TYPES = ("bool", "f16", "bf16", "f32", "f64", "i8", "ui8", "i16", "i32", "i64")
_NOT_FINITE = {"INF": float("inf"), "-INF": float("-inf"), "NAN": float("nan")}


@dataclass(frozen=True)
class Tensor:
    """The type of a tensor.

    Attributes:
        data_type: such as ``f32``.
        shape: -1 stands for any size.
    """

    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """An output of an op.

    Attributes:
        number: the number by which other ops name it.
        tensors: its type; several tensors if the value is a list, none if the op does not set it.
        is_list: whether the value is a list of tensors.
    """

    number: int
    tensors: tuple[Tensor, ...]
    is_list: bool


@dataclass(frozen=True)
class PirOp:
    """An op.

    Attributes:
        kind: dialect and name, such as ``pd_op.conv2d``.
        inputs: numbers of the values that the op reads; ``ABSENT`` for a missing input.
        outputs: the values that the op returns.
        attributes: numbers, texts, and lists of them.
        has_blocks: whether the op contains other ops, such as a condition.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[Value, ...]
    attributes: Mapping[str, Any]
    has_blocks: bool = False


def program_file(prefix: Path) -> Path:
    """Return the file that holds the program of a saved model.

    Args:
        prefix: path without ``.pdmodel``, ``.json`` and ``.pdiparams``.

    Returns:
        ``prefix``.json if only this file exists, otherwise ``prefix``.pdmodel.
    """
    legacy, pir = Path(f"{prefix}.pdmodel"), Path(f"{prefix}{SUFFIX}")
    return pir if pir.is_file() and not legacy.is_file() else legacy


def read_pir(path: Path) -> Sequence[PirOp]:
    """Read the ops of a ``.json`` file.

    Raises:
        DataError: the file is missing, or does not contain a PIR program.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "Check /model/inference_model.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected a program in Paddle 3's JSON format, found no valid JSON: {error}",
            "Copy the file again, or set /model/inference_model to another model.",
        ) from error
    header = document.get("base_code") if isinstance(document, dict) else None
    if not isinstance(header, dict) or header.get("magic") != "pir":
        raise DataError(
            f"{path}: expected a program in Paddle 3's JSON format (PIR), found other JSON",
            "Set /model/inference_model to MODEL for MODEL.json and MODEL.pdiparams, as "
            "paddle.jit.save writes them.",
        )
    try:
        (region,) = document["program"]["regions"]
        (block,) = region["blocks"]
        return tuple(_op(op) for op in block["ops"])
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise DataError(
            f"{path}: the PIR program is damaged: {type(error).__name__}: {error}", EXPORT_AGAIN
        ) from error


def _op(op: Mapping[str, Any]) -> PirOp:
    if op["#"] == "p":
        name = op["A"][3]
        if not isinstance(name, str):
            raise TypeError(f"the name of a parameter is {name!r}")
        return PirOp(PARAMETER, (), (_value(op["O"]),), {"name": name})
    dialect, _, name = op["#"].partition(".")
    return PirOp(
        kind=f"{DIALECTS.get(dialect, dialect)}.{name}",
        inputs=tuple(_number(each) for each in op["I"]),
        outputs=tuple(_value(each) for each in op["O"]),
        attributes={each["N"]: _attribute(each["AT"]) for each in op["A"]},
        has_blocks=bool(op.get("regions")),
    )


def _number(value: Mapping[str, Any]) -> int:
    number = value["%"]
    if not isinstance(number, int):
        raise TypeError(f"the number of a value is {number!r}")
    return number


def _value(value: Mapping[str, Any]) -> Value:
    kind = value["TT"]["#"].rpartition(".")[2]
    if kind == "NULL":
        return Value(_number(value), (), is_list=False)
    if kind == "t_vec":
        return Value(_number(value), tuple(map(_tensor, value["TT"]["D"])), is_list=True)
    return Value(_number(value), (_tensor(value["TT"]),), is_list=False)


def _tensor(kind: Mapping[str, Any]) -> Tensor:
    data_type = kind["D"][0]["#"].rpartition(".t_")[2]
    shape = kind["D"][1]
    if not kind["#"].endswith(".t_dtensor") or data_type not in _DATA_TYPES:
        raise ValueError(f"a value has the unsupported type {kind['#']} of {data_type}")
    if not all(isinstance(size, int) for size in shape):
        raise TypeError(f"a value has the shape {shape!r}")
    return Tensor(data_type, tuple(shape))


def _attribute(value: Mapping[str, Any]) -> Any:
    kind = value["#"].rpartition(".")[2]
    if "VD" in value:
        return _NOT_FINITE[value["VD"]]
    if kind == "a_array":
        return [_attribute(each) for each in value["D"]]
    return value["D"][1] if kind == "a_scalar" else value.get("D")
