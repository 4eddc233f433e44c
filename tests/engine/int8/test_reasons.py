"""The audit says why a matrix product stays in FP32, and names the weight."""

import pytest
import tiny

from job.engine.inference.paddle_format import make_op
from job.engine.int8.audit import audit
from job.errors import QuantizationError

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


def test_model_without_int8_says_why():
    product = make_op("matmul_v2", {"X": "x", "Y": "w"}, {"Out": "y"}, {"trans_y": 1})
    with pytest.raises(QuantizationError) as caught:
        audit({}, [product], [], {}, {"w"})
    assert "y: it reads its weight w transposed" in caught.value.hint
