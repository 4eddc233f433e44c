"""The rewrites for other engines, on programs of a few ops."""

from typing import Any

import numpy as np
import pytest

from job.engine.inference.paddle_format import ProgramDesc, VarType
from job.engine.inference.saved_model import PADDLE_OPENVINO, kind_of
from job.engine.rewrites import rules
from job.engine.rewrites.network import Network, attribute, names

pytestmark = pytest.mark.engine


def network(*ops: tuple[Any, ...], **values: Any) -> Network:
    """A network of ops (type, inputs, outputs, attributes); variables have shape [-1, 4, 2, 2]."""
    program = ProgramDesc()
    block = program.blocks.add(idx=0, parent_idx=-1)
    seen: dict[str, None] = {}
    for kind, inputs, outputs, attributes in ops:
        op = block.ops.add(type=kind)
        for slots, target in ((inputs, op.inputs), (outputs, op.outputs)):
            for slot, name in slots.items():
                target.add(parameter=slot, arguments=[name])
                seen[name] = None
        for name, value in attributes.items():
            made = op.attrs.add(name=name, type=0)
            if isinstance(value, bool):
                made.b = value
            elif isinstance(value, int):
                made.i = value
            elif isinstance(value, float):
                made.f = value
            elif isinstance(value, str):
                made.s = value
            else:
                made.ints.extend(value)
    arrays = {name: np.asarray(value) for name, value in values.items()}
    for name in seen:
        variable = block.vars.add(name=name, persistable=name in arrays)
        variable.type.type = VarType.DENSE_TENSOR
        variable.type.dense_tensor.tensor.data_type = VarType.FP32
        variable.type.dense_tensor.tensor.dims[:] = getattr(
            arrays.get(name), "shape", (-1, 4, 2, 2)
        )
    return Network(program, arrays)


def pair(source: str, name: str, scale: str = "s", **attributes: Any) -> list[tuple[Any, ...]]:
    """Ops that quantize ``source`` and write ``name``."""
    given = {"quant_axis": -1, **attributes}
    return [
        ("quantize_linear", {"X": source, "Scale": scale}, {"Y": f"{name}_q"}, given),
        ("dequantize_linear", {"X": f"{name}_q", "Scale": scale}, {"Y": name}, given),
    ]


SCALES = {"s": np.float32([2]), "t": np.float32([2]), "u": np.float32([3])}


def kinds(changed: Network) -> list[str]:
    return [op.type for op in changed.ops]


def reads(changed: Network, kind: str) -> list[list[str]]:
    return [names(op.inputs, "X") for op in changed.ops if op.type == kind]


def test_pairs_of_a_variable_in_the_same_steps_are_merged() -> None:
    ops = [*pair("x", "a"), *pair("x", "b", "t"), *pair("x", "c", "u")]
    again = ("dequantize_linear", {"X": "a_q", "Scale": "s"}, {"Y": "d"}, {"quant_axis": -1})
    uses = [("relu", {"X": name}, {"Out": f"{name}_out"}, {}) for name in "abcd"]
    changed = network(*ops, again, *uses, **SCALES)
    assert rules.merge_pairs(changed) == 2
    assert kinds(changed).count("quantize_linear") == kinds(changed).count("dequantize_linear") == 2
    assert reads(changed, "relu") == [["a"], ["a"], ["c"], ["a"]]


def test_pairs_that_write_the_same_variables_are_one_pair() -> None:
    """PaddleSlim inserts an equal pair for each reader, such as the two branches of a ResNet."""
    first, second = pair("x", "a")
    uses = [("relu", {"X": "a"}, {"Out": f"{name}_out"}, {}) for name in "ab"]
    changed = network(first, second, first, second, *uses, **SCALES)
    assert rules.drop_repeated_ops(changed) == 2
    assert rules.merge_pairs(changed) == 0
    assert kinds(changed) == ["quantize_linear", "dequantize_linear", "relu", "relu"]


def test_equal_ops_are_told_apart_by_identity() -> None:
    """Two equal relu ops; only the second one is removed."""
    relu = ("relu", {"X": "x"}, {"Out": "y"}, {})
    changed = network(relu, relu)
    second = changed.ops[1]
    changed.remove(second)
    assert len(changed.ops) == 1
    assert changed.ops[0] is not second


@pytest.mark.parametrize(
    ("attributes", "dropped"),
    [
        ({"adaptive": True, "ksize": [2, 2]}, 1),
        ({"adaptive": True, "ksize": [1, 1]}, 0),
        ({"ksize": [1, 1], "strides": [1, 1], "paddings": [0, 0]}, 1),
        ({"ksize": [1, 1], "strides": [2, 2], "paddings": [0, 0]}, 0),
        ({"global_pooling": True, "ksize": [1, 1], "strides": [1, 1], "paddings": [0, 0]}, 0),
    ],
)
def test_only_pools_that_change_nothing_are_dropped(attributes: Any, dropped: int) -> None:
    pool = ("pool2d", {"X": "x"}, {"Out": "y"}, attributes)
    changed = network(pool, ("relu", {"X": "y"}, {"Out": "z"}, {}))
    assert rules.drop_idle_pools(changed) == dropped
    assert reads(changed, "relu") == [["x"] if dropped else ["y"]]


@pytest.mark.parametrize("shared", [False, True])
def test_weights_get_one_row_per_output(shared: bool) -> None:
    weight = np.arange(6, dtype="int8").reshape(2, 3)
    restore = ("dequantize_linear", {"X": "w", "Scale": "k"}, {"Y": "f"}, {"quant_axis": 1})
    product = ("matmul_v2", {"X": "x", "Y": "f"}, {"Out": "y"}, {"trans_y": False})
    second = [("matmul_v2", {"X": "x", "Y": "f"}, {"Out": "v"}, {"trans_y": False})] * shared
    changed = network(restore, product, *second, w=weight, k=np.float32([1, 2, 3]))
    assert rules.transpose_weights(changed) == (not shared)
    expected = weight if shared else weight.T
    assert changed.values["w"].tolist() == expected.tolist()
    axis, flag = attribute(changed.ops[0], "quant_axis"), attribute(changed.ops[1], "trans_y")
    assert axis is not None
    assert flag is not None
    assert (axis.i, flag.b) == ((1, False) if shared else (0, True))


@pytest.mark.parametrize(
    ("kind", "attributes", "moved"),
    [
        ("flatten_contiguous_range", {}, 1),
        ("reshape2", {}, 1),
        ("dropout", {"dropout_implementation": "upscale_in_train"}, 1),
        ("dropout", {"dropout_implementation": "downgrade_in_infer"}, 0),
        ("relu", {}, 0),
    ],
)
def test_pairs_move_before_ops_that_only_move_values(
    kind: str, attributes: Any, moved: int
) -> None:
    reshape = (kind, {"X": "x"}, {"Out": "y"}, attributes)
    changed = network(
        reshape, *pair("y", "a"), ("matmul_v2", {"X": "a"}, {"Out": "z"}, {}), **SCALES
    )
    assert rules.quantize_before_reshapes(changed) == moved
    assert kinds(changed)[0] == ("quantize_linear" if moved else kind)
    assert reads(changed, "matmul_v2") == [["y"] if moved else ["a"]]
    assert reads(changed, "quantize_linear") == [["x"] if moved else ["y"]]


@pytest.mark.parametrize(
    ("kind", "scale", "dropped"), [("max", "t", 1), ("max", "u", 0), ("avg", "t", 0)]
)
def test_a_pair_behind_a_max_pool_is_dropped_if_steps_are_equal(
    kind: str, scale: str, dropped: int
) -> None:
    pool = ("pool2d", {"X": "a"}, {"Out": "p"}, {"pooling_type": kind})
    last = ("relu", {"X": "b"}, {"Out": "z"}, {})
    changed = network(*pair("x", "a"), pool, *pair("p", "b", scale), last, **SCALES)
    assert rules.drop_repeated_pairs(changed) == dropped
    assert reads(changed, "relu") == [["p"] if dropped else ["b"]]
    assert kinds(changed).count("quantize_linear") == 2 - dropped


CONVOLUTION = ("conv2d", {"Input": "x", "Filter": "w"}, {"Output": "c"}, {})
BIAS = ("elementwise_add", {"X": "c", "Y": "bias"}, {"Out": "b"}, {})
RELU = ("relu", {"X": "c"}, {"Out": "b"}, {})
OTHER_READER = ("relu", {"X": "b"}, {"Out": "z"}, {})
SUM = ("elementwise_add", {"X": "one", "Y": "two"}, {"Out": "sum"}, {})


@pytest.mark.parametrize(
    ("ops", "dropped"),
    [
        ([CONVOLUTION, BIAS, *pair("b", "one"), *pair("y", "two"), SUM], 1),
        ([CONVOLUTION, BIAS, *pair("y", "one"), *pair("b", "two"), SUM], 1),
        ([CONVOLUTION, *pair("c", "one"), *pair("c", "two", "u"), SUM], 0),
        ([CONVOLUTION, RELU, *pair("b", "one"), *pair("y", "two"), SUM], 0),
        ([CONVOLUTION, BIAS, *pair("b", "one"), ("relu", {"X": "y"}, {"Out": "two"}, {}), SUM], 0),
        (
            [CONVOLUTION, BIAS, *pair("b", "one"), *pair("y", "two"), SUM, OTHER_READER],
            0,
        ),
    ],
    ids=["first", "second", "read twice", "relu", "other operand in FP32", "other reader"],
)
def test_the_result_of_a_convolution_is_added_before_it_is_rounded(
    ops: list[tuple[Any, ...]], dropped: int
) -> None:
    weights = {"w": np.zeros((4, 4, 1, 1), "float32"), "bias": np.zeros(4, "float32")}
    changed = network(*ops, **weights, **SCALES)
    assert rules.drop_pairs_in_fused_sums(changed) == dropped
    pairs = [op for op in ops if op[0] == "quantize_linear"]
    for kind in ("quantize_linear", "dequantize_linear"):
        assert kinds(changed).count(kind) == len(pairs) - dropped
    (add,) = [op for op in changed.ops if names(op.outputs) == ["sum"]]
    assert ("b" in names(add.inputs)) == bool(dropped)


def test_only_one_operand_of_a_sum_of_two_convolutions_is_not_rounded() -> None:
    other = ("conv2d", {"Input": "x", "Filter": "w"}, {"Output": "d"}, {})
    ops = [CONVOLUTION, other, *pair("c", "one"), *pair("d", "two"), SUM]
    changed = network(*ops, w=np.zeros((4, 4, 1, 1), "float32"), **SCALES)
    assert rules.drop_pairs_in_fused_sums(changed) == 1
    assert reads(changed, "quantize_linear") == [["d"]]


@pytest.mark.parametrize(("kind", "read"), [("conv2d", "a"), ("relu", "x")])
def test_a_product_reads_the_rounded_result_of_a_convolution(kind: str, read: str) -> None:
    ops = [
        (kind, {"Input": "w"}, {"Output": "x"}, {}),
        ("elementwise_mul", {"X": "x", "Y": "gate"}, {"Out": "product"}, {}),
        *pair("x", "a"),
        ("relu", {"X": "a"}, {"Out": "b"}, {}),
    ]
    changed = network(*ops, **SCALES)
    assert rules.round_before_products(changed) == (kind == "conv2d")
    assert reads(changed, "elementwise_mul") == [[read]]
    # A reader stands behind the op whose result it reads.
    order = kinds(changed).index("dequantize_linear") < kinds(changed).index("elementwise_mul")
    assert order == (kind == "conv2d")


def test_a_channel_shuffle_is_not_separated() -> None:
    shuffle = ("transpose2", {"X": "x"}, {"Out": "t"}, {})
    reshape = ("reshape2", {"X": "t"}, {"Out": "y"}, {})
    changed = network(shuffle, reshape, *pair("y", "a"), **SCALES)
    assert rules.quantize_before_reshapes(changed) == 0


def test_unsigned_values_get_256_steps_and_mark_the_model() -> None:
    marked = pair("x", "a", qmin=0, qmax=255)
    changed = network(*marked, *pair("y", "b"), **SCALES)
    assert kind_of(changed.ops) == "fake_quantized"
    assert rules.use_unsigned_steps(changed) == 1
    assert kind_of(changed.ops) == PADDLE_OPENVINO
    for op in changed.ops[:2]:
        (zero,), (scale,) = names(op.inputs, "ZeroPoint"), names(op.inputs, "Scale")
        assert changed.values[zero].tolist() == [-128]
        assert changed.values[scale] / 127 * 255 == pytest.approx(2)
        assert attribute(op, "qmax") is None
    assert [names(op.inputs, "Scale") for op in changed.ops[2:]] == [["s"], ["s"]]


@pytest.mark.parametrize(
    ("ops", "unsigned"),
    [
        ([("relu", {"X": "x"}, {"Out": "y"}, {})], True),
        ([("leaky_relu", {"X": "x"}, {"Out": "y"}, {})], False),
        (
            [
                ("relu", {"X": "x"}, {"Out": "r"}, {}),
                ("pool2d", {"X": "r"}, {"Out": "p"}, {}),
                ("elementwise_add", {"X": "p", "Y": "r"}, {"Out": "y"}, {}),
            ],
            True,
        ),
        (
            [
                ("relu", {"X": "x"}, {"Out": "r"}, {}),
                ("elementwise_add", {"X": "r", "Y": "bias"}, {"Out": "y"}, {}),
            ],
            False,
        ),
        ([("clip", {"X": "x"}, {"Out": "y"}, {"min": 0.0, "max": 6.0})], True),
        ([("clip", {"X": "x"}, {"Out": "y"}, {"min": -1.0, "max": 6.0})], False),
    ],
    ids=["relu", "leaky relu", "sum", "bias", "clip", "symmetric clip"],
)
def test_values_that_are_never_negative_get_256_steps(
    ops: list[tuple[Any, ...]], unsigned: bool
) -> None:
    changed = network(*ops, *pair("y", "a"), bias=np.zeros(4, "float32"), **SCALES)
    assert rules.use_unsigned_steps(changed) == unsigned
    zeros = [names(op.inputs, "ZeroPoint") for op in changed.ops[-2:]]
    assert [len(zero) for zero in zeros] == [unsigned, unsigned]


def test_weights_are_halved_without_changing_what_they_stand_for() -> None:
    weight = np.array([[127, -127, 3], [0, 2, -64]], "int8")
    restore = [
        ("dequantize_linear", {"X": "w", "Scale": "k"}, {"Y": y}, {"quant_axis": 1}) for y in "fg"
    ]
    changed = network(*restore, *pair("x", "a"), w=weight, k=np.float32([1, 2, 3]), **SCALES)
    assert rules.halve_weights(changed) == 2
    for op in changed.ops[:2]:
        (name,), (scale,) = names(op.inputs, "X"), names(op.inputs, "Scale")
        assert np.abs(changed.values[name]).max() <= 64
        assert changed.values[scale].tolist() == [2, 4, 6]
        assert np.abs(2 * changed.values[name].astype(int) - weight).max() <= 1
    assert [names(op.inputs, "Scale") for op in changed.ops[2:]] == [["s"], ["s"]]
