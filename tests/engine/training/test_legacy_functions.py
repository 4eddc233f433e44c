# ruff: noqa: TID251, I001
import numpy as np

# Before paddle, because it selects the legacy program format.
import job.engine  # noqa: F401
import paddle
import pytest
from paddle import static
from paddle.base.dygraph.generated_tensor_methods_patch import methods_map

from job.engine.training.legacy_functions import ROUTES, legacy_functions
from job.engine.training.programs import cpu

pytestmark = pytest.mark.engine

POSITIVE = np.random.default_rng(0).uniform(0.5, 2, (2, 3, 4)).astype("float32")
OTHER = np.random.default_rng(1).uniform(0.5, 2, (2, 3, 4)).astype("float32")
COLUMN = POSITIVE[:, :, :1]
FACTOR = np.random.default_rng(2).normal(size=(2, 4, 5)).astype("float32")
ODD = np.array([[np.inf, -np.inf, np.nan, 1.0]], "float32")
TRUE, FALSE = POSITIVE > 1, OTHER > 1
UNARY = ["cos", "floor", "log", "rsqrt", "sigmoid", "sign", "sin", "sqrt"]
BINARY = ["multiply", "maximum", "minimum", "greater_than"]
CASES = [
    *((name, (POSITIVE,), {}) for name in UNARY),
    *((name, (ODD,), {}) for name in ("isfinite", "isinf", "isnan")),
    *((name, (POSITIVE, OTHER), {}) for name in BINARY),
    *((name, (POSITIVE, COLUMN), {}) for name in BINARY),
    *((name, (TRUE,), {"axis": axis}) for name in ("all", "any") for axis in (None, 1, [0, -1])),
    *((name, (TRUE, FALSE), {}) for name in ("logical_and", "logical_or", "logical_xor")),
    ("logical_not", (TRUE,), {}),
    *((name, (POSITIVE,), {"axis": 1, "keepdim": True}) for name in ("amin", "amax", "logsumexp")),
    *((name, (POSITIVE,), {"axis": [-1, 0]}) for name in ("amin", "amax", "logsumexp")),
    *((name, (POSITIVE,), {}) for name in ("amin", "amax", "logsumexp")),
    *((name, (POSITIVE, 1), {}) for name in ("tril", "triu")),
    ("roll", (POSITIVE, 2), {}),
    ("roll", (POSITIVE, [1, -1], [1, 2]), {}),
    ("bmm", (POSITIVE, FACTOR), {}),
    ("matmul", (POSITIVE, FACTOR), {}),
    ("matmul", (POSITIVE, OTHER), {"transpose_y": True}),
    ("matmul", (POSITIVE, FACTOR[0]), {}),
    ("matmul", (POSITIVE[0, 0], FACTOR[0]), {}),
    ("expand_as", (COLUMN, POSITIVE), {}),
]


def eager(name, arguments, keywords):
    paddle.disable_static()
    try:
        tensors = [paddle.to_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
        return getattr(paddle, name)(*tensors, **keywords).numpy()
    finally:
        paddle.enable_static()


def traced(name, arguments, keywords):
    main, feed = static.Program(), {}
    with static.program_guard(main), legacy_functions():
        inputs = []
        for number, value in enumerate(arguments):
            if isinstance(value, np.ndarray):
                feed[f"x{number}"] = value
                value = static.data(f"x{number}", [-1, *value.shape[1:]], str(value.dtype))
            inputs.append(value)
        result = getattr(paddle, name)(*inputs, **keywords)
    return static.Executor(cpu()).run(main, feed, [result])[0], result


def test_every_generated_function_has_a_route():
    assert set(ROUTES) == {name for name, _ in methods_map}
    assert set(ROUTES) == {name for name, _, _ in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def test_legacy_op_computes_what_eager_computes(case):
    expected = eager(*case)
    result, variable = traced(*case)
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    assert len(variable.shape) == expected.ndim


def test_other_names_of_arguments():
    main = static.Program()
    with static.program_guard(main), legacy_functions():
        x = static.data("x", [-1, 3, 4], "float32")
        assert tuple(paddle.amax(input=x, dim=1).shape) == (-1, 4)
        assert paddle.nn.functional.sigmoid(x).shape == x.shape
        assert (x.multiply(x)).shape == x.shape


def test_functions_are_as_before_outside_the_context():
    before = paddle._C_ops.matmul
    with legacy_functions():
        assert paddle._C_ops.matmul is not before
    assert paddle._C_ops.matmul is before
