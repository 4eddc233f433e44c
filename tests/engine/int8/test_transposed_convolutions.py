"""Ops behind transposed convolutions run in INT8."""

import pytest
import tiny

from job.tasks.classification import agreement

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("name", ["transposed_by_blocks", "transposed_with_shortcut"])
def test_convolution_behind_a_transposed_convolution_runs_in_int8(name, tmp_path):
    session = tiny.open_tiny(name=None, callable_=f"odd_networks:{name}", classes=10)
    made = tiny.quantize(session, tmp_path)
    found = tiny.scores(tmp_path / "model", "int8", made.images)
    assert agreement((found,), (made.fake,)).signal_to_noise_db > 25
    assert {left["type"] for left in made.audit.left_in_fp32} <= {"pool2d"}
