"""Adds the tutorial's accuracy layer to saved models."""

import shutil
from pathlib import Path

from job.engine.inference.paddle_format import OpDesc, ProgramDesc, VarType, make_op, read_program


def add_accuracy_layer(source: Path, target: Path) -> None:
    """Copy a model, add a label input [N, 1], and make top-1 and top-5 accuracy its only outputs.

    The program is edited as a message, because Paddle's Python API drops attributes of INT8 ops.
    """
    program = read_program(Path(f"{source}.pdmodel"))
    block = program.blocks[0]
    fetch = next(op for op in block.ops if op.type == "fetch")
    scores = fetch.inputs[0].arguments[0]
    classes = next(v for v in block.vars if v.name == scores).type.dense_tensor.tensor.dims[1]
    ops = [op for op in block.ops if op.type != "fetch"]
    declare(program, "label", VarType.INT64, [-1, 1])
    feed = make_op("feed", {"X": "feed"}, {"Out": "label"}, {"col": 1})
    for column, k in enumerate((1, min(5, classes))):
        name = f"top{k}_{column}"
        declare(program, f"{name}.values", VarType.FP32, [-1, k])
        declare(program, f"{name}.indices", VarType.INT64, [-1, k])
        declare(program, f"{name}.accuracy", VarType.FP32, [])
        declare(program, f"{name}.correct", VarType.INT32, [])
        declare(program, f"{name}.total", VarType.INT32, [])
        best = {"Out": f"{name}.values", "Indices": f"{name}.indices"}
        ops.append(make_op("top_k_v2", {"X": scores}, best, {"k": k}))
        results = {part: f"{name}.{part.lower()}" for part in ("Accuracy", "Correct", "Total")}
        ops.append(make_op("accuracy", {**best, "Label": "label"}, results, {}))
        ops.append(make_op("fetch", {"X": results["Accuracy"]}, {"Out": "fetch"}, {"col": column}))
    kept = [OpDesc.FromString(op.SerializeToString()) for op in [feed, *ops]]
    del block.ops[:]
    block.ops.extend(kept)
    Path(f"{target}.pdmodel").write_bytes(program.SerializeToString())
    shutil.copyfile(f"{source}.pdiparams", f"{target}.pdiparams")


def declare(program: ProgramDesc, name: str, data_type: int, dims: list[int]) -> None:
    """Declare a variable that is not persistable."""
    variable = program.blocks[0].vars.add(name=name, persistable=False)
    variable.type.type = VarType.DENSE_TENSOR
    variable.type.dense_tensor.tensor.data_type = data_type
    variable.type.dense_tensor.tensor.dims.extend(dims)
