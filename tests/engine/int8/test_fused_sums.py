"""Sums are right in INT8 that Paddle's passes would fuse wrongly."""

import pytest
import tiny

from job.host import read_host
from job.tasks.classification import agreement

pytestmark = pytest.mark.engine
# Without VNNI, oneDNN halves weights and rounds odd ones, in the loaded model more often.
EXACT = read_host().has_vnni
LOWEST_DB = 25 if EXACT else 20


@pytest.mark.parametrize("name", ["product_with_activation", "product_with_entry_of_table"])
def test_sum_with_a_product_is_right(name, tmp_path):
    session = tiny.open_tiny(name=None, callable_=f"odd_networks:{name}", classes=10)
    made = tiny.quantize(session, tmp_path)
    found = tiny.scores(tmp_path / "model", "int8", made.images)
    assert agreement((found,), (made.fake,)).signal_to_noise_db > LOWEST_DB
    if EXACT:
        assert (found == made.int8).all()
    products = [left for left in made.audit.left_in_fp32 if "matmul" in left["type"]]
    assert not products


@pytest.mark.parametrize(
    "name",
    [
        *("small_layer_plus_large", "activation_plus_small_layer", "repeated_layer"),
        "pixels_plus_small_convolution",
    ],
)
def test_sum_of_layers_is_right(name, tmp_path):
    session = tiny.open_tiny(name=None, callable_=f"odd_networks:{name}", classes=10)
    made = tiny.quantize(session, tmp_path)
    found = tiny.scores(tmp_path / "model", "int8", made.images)
    assert agreement((found,), (made.fake,)).signal_to_noise_db > LOWEST_DB
