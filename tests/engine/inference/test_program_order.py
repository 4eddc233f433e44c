"""Equal models become equal files, independently of the order of ops that Paddle produces."""

from pathlib import Path

import numpy as np
import pytest
import tiny

from job.engine.inference import paddle_format
from job.engine.inference.paddle_format import ProgramDesc, dependencies, put_in_order

pytestmark = pytest.mark.engine


def shuffled(program: ProgramDesc, seed: int) -> ProgramDesc:
    """Return the same program with its ops in another valid order."""
    draw = np.random.default_rng(seed)
    block = program.blocks[0]
    ops = [type(op).FromString(op.SerializeToString()) for op in block.ops]
    needs = dependencies(ops)
    order: list[int] = []
    while len(order) < len(ops):
        ready = [i for i in range(len(ops)) if i not in order and needs[i] <= set(order)]
        order.append(draw.choice(ready))
    variables = [type(v).FromString(v.SerializeToString()) for v in block.vars]
    draw.shuffle(variables)
    other = ProgramDesc.FromString(program.SerializeToString())
    del other.blocks[0].ops[:], other.blocks[0].vars[:]
    other.blocks[0].ops.extend(ops[i] for i in order)
    other.blocks[0].vars.extend(variables)
    return other


@pytest.mark.parametrize("name", ["fake", "model"])
def test_saved_models_are_in_the_order_of_their_graph(resnet18: tiny.Quantized, name: str) -> None:
    content = Path(resnet18.folder / f"{name}.pdmodel").read_bytes()
    program = ProgramDesc.FromString(content)
    for seed in range(5):
        other = shuffled(program, seed)
        assert other.SerializeToString() != content
        put_in_order(other)
        assert other.SerializeToString() == content


def test_a_weight_is_restored_just_before_its_use(resnet18: tiny.Quantized) -> None:
    program = paddle_format.read_program(Path(resnet18.folder / "model.pdmodel"))
    kinds = [op.type for op in program.blocks[0].ops]
    assert (kinds[0], kinds[-1]) == ("feed", "fetch")
    assert any(
        kinds[i : i + 3] == ["cast", "elementwise_mul", "fused_conv2d"]
        for i in range(20, len(kinds))
    )


def test_an_op_that_works_in_place_stays_behind_those_that_read_what_was_there() -> None:
    def op(kind: str, reads: str, writes: str) -> paddle_format.OpDesc:
        return paddle_format.make_op(kind, {"X": reads}, {"Out": writes}, {})

    ops = [
        op("feed", "feed", "x"),
        op("a", "x", "y"),
        op("b", "x", "x"),
        op("c", "x", "z"),
        op("sum", "y", "x"),
        op("fetch", "x", "fetch"),
    ]
    assert dependencies(ops) == [set(), {0}, {0, 1}, {2}, {1, 2, 3}, {4}]
    program = ProgramDesc()
    program.blocks.add(idx=0, parent_idx=-1).ops.extend(ops)
    put_in_order(program)
    assert [op.type for op in program.blocks[0].ops] == ["feed", "a", "b", "c", "sum", "fetch"]


@pytest.mark.parametrize("name", ["fake", "model"])
def test_saved_models_contain_no_path_of_this_machine(resnet18: tiny.Quantized, name: str) -> None:
    content = Path(resnet18.folder / f"{name}.pdmodel").read_bytes()
    assert b".py" not in content
    assert b"callstack" not in content
