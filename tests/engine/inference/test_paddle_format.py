import numpy as np
import pytest

from job.engine.inference.paddle_format import (
    ProgramDesc,
    VarType,
    add_variable,
    attribute,
    chunks,
    make_op,
    read_parameters,
    write_model,
)

pytestmark = pytest.mark.engine


def test_the_last_of_two_attributes_counts_as_in_paddle():
    op = make_op("fused_conv2d", {}, {}, {"fuse_activation": 1})
    op.attrs.add().CopyFrom(op.attrs[0])
    op.attrs[1].i = 2
    assert attribute(op, "fuse_activation") == 2


def test_a_single_number_has_no_axis():
    description = list(chunks({"scale": np.float32(3)}))[1]
    assert list(VarType.TensorDesc.FromString(description).dims) == []


@pytest.mark.parametrize("dtype", ["bool", "int16", "float16", "float64", "complex64"])
def test_constants_of_each_type_are_written_and_read(dtype, tmp_path):
    program = ProgramDesc()
    program.blocks.add(idx=0, parent_idx=-1)
    value = np.arange(6).reshape(2, 3).astype(dtype)
    add_variable(program, "mask", value, persistable=True)
    write_model(tmp_path / "model", program, {"mask": value})
    found = read_parameters(tmp_path / "model.pdiparams", program)["mask"]
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)
