"""The audit says why a matrix product stays in FP32, and names the weight."""

import pytest
import tiny

from job.engine.inference.paddle_format import make_op
from job.engine.int8.audit import audit
from job.engine.int8.fp32_types import types_in_fp32
from job.errors import QuantizationError
from job.tasks.classification import agreement

pytestmark = pytest.mark.engine

# Network -> weight, words of the reason.
PRODUCTS = {
    "weight_on_the_left": ("network_0.w_0", "left operand"),
    "tied_weight": ("linear_0.w_0", "transposed"),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_product_in_fp32_is_explained(name, tmp_path):
    session = tiny.open_tiny(name=None, callable_=f"own_networks:{name}", classes=10)
    audit = tiny.quantize(session, tmp_path).audit
    assert audit.fp32_ops == 1
    products = [left for left in audit.left_in_fp32 if left["type"].startswith(("mul", "matmul"))]
    assert len(products) == 1
    for part in PRODUCTS[name]:
        assert part in products[0]["reason"]


def test_layer_of_pixels_names_its_dimensions(tmp_path):
    session = tiny.open_tiny(name=None, callable_="odd_networks:layer_of_pixels", classes=10)
    made = tiny.quantize(session, tmp_path)
    (layer,) = [left for left in made.audit.left_in_fp32 if left["type"] == "fc"]
    assert "4 dimensions" in layer["reason"]
    assert agreement((made.int8,), (made.fake,)).signal_to_noise_db > 25


def test_model_without_int8_says_why():
    product = make_op("matmul_v2", {"X": "x", "Y": "w"}, {"Out": "y"}, {"trans_y": 1})
    with pytest.raises(QuantizationError) as caught:
        audit({}, [product], [], {}, {"w"})
    assert "y: it reads its weight w transposed" in caught.value.hint


def test_transposed_convolutions_are_listed_with_and_without_a_folded_bias():
    names = ("conv2d_transpose", "conv2d_transpose_bias", "conv2d_transpose_bias", "sigmoid")
    found = types_in_fp32([make_op(name, {}, {}, {}) for name in names])
    assert [(each["type"], each["count"]) for each in found] == [
        ("conv2d_transpose", 1),
        ("conv2d_transpose_bias", 2),
    ]
    assert all("transposed convolutions" in each["reason"] for each in found)
