"""Small programs in Paddle 3's JSON format (PIR), written without Paddle."""

import json
from pathlib import Path
from typing import Any


def value(number: int, *shape: int) -> dict[str, Any]:
    kind = {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, list(shape), "NCHW", [], 0]}
    return {"%": number, "TT": kind}


def attribute(name: str, kind: str, content: Any) -> dict[str, Any]:
    return {"N": name, "AT": {"#": kind, "D": content}}


def op(kind: str, inputs: list[int], output: dict[str, Any], *attributes: Any) -> dict[str, Any]:
    numbers = [{"%": number} for number in inputs]
    return {"#": kind, "A": list(attributes), "I": numbers, "O": [output], "OA": []}


def program(*middle: dict[str, Any], last: int = 2) -> dict[str, Any]:
    """Return a program with parameter 1, input 2 [-1, 4], other ops, and output ``last``."""
    parameter = {"#": "p", "A": [0, 1, 1, "weight"], "O": value(1, 4, 4), "OA": [], "QA": []}
    ops = [
        parameter,
        op("1.data", [], value(2, -1, 4), attribute("name", "0.a_str", "x")),
        *middle,
        op("1.fetch", [last], value(99, -1, 4), attribute("col", "0.a_i32", 0)),
    ]
    block = {"#": "block_0", "args": [], "ops": ops}
    return {
        "base_code": {"magic": "pir", "trainable": True, "version": 3},
        "program": {"regions": [{"#": "region_0", "blocks": [block]}]},
    }


def save(prefix: Path, document: Any) -> Path:
    """Write a program and an empty file of parameters; return the program's path."""
    path = Path(f"{prefix}.json")
    path.write_text(json.dumps(document))
    Path(f"{prefix}.pdiparams").write_bytes(b"")
    return path
