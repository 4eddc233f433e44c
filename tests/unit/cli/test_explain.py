import io
import subprocess
import sys

import pytest
from rich.console import Console

from job.cli.explain import explain, render
from job.cli.key_costs import COSTS
from job.errors import UsageError
from job.manifest.schema import keys


def rendered(pointer: str | None, width: int = 100) -> str:
    stream = io.StringIO()
    render(explain(pointer), Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize(
    "pointer", ["quantize.weight_quantize_type", "/quantize/weight_quantize_type"]
)
def test_one_key(pointer: str) -> None:
    (key,) = explain(pointer)
    assert key.pointer == "/quantize/weight_quantize_type"
    assert key.name == "weight_quantize_type"
    assert key.meaning.startswith(f"{key.summary} ")
    assert key.types == ("string",)
    assert key.default == "channel_wise_abs_max"
    assert key.allowed == (
        "one of abs_max, channel_wise_abs_max, range_abs_max, moving_average_abs_max"
    )
    assert key.examples == ("channel_wise_abs_max",)
    assert not key.required


def test_nullable_number_says_its_range_and_null() -> None:
    (key,) = explain("gates.max_top1_drop")
    assert key.types == ("number", "null")
    assert key.allowed == "a number of at least -100 and at most 100, or null"


def test_same_key_has_the_default_of_its_place() -> None:
    assert explain("train.epochs")[0].default == 1
    assert explain("baseline.train.epochs")[0].default == 0


def test_no_argument_lists_every_key_with_one_short_line() -> None:
    found = explain()
    assert {key.pointer for key in found} > {key.pointer for key in keys()}
    for key in found:
        assert len(key.summary) <= 80
        assert key.summary.endswith(".")


def test_every_key_has_its_cost_in_one_line() -> None:
    for key in explain():
        assert 0 < len(key.cost) <= 85
    assert explain("train.epochs")[0].cost != explain("train.base_lr")[0].cost
    assert explain("train.max_iters")[0].cost in rendered("train.max_iters")


def test_costs_name_existing_keys() -> None:
    """A line of a key that was renamed would never be printed."""
    pointers = {key.pointer for key in explain()}
    assert set(COSTS) - pointers == {""}


def test_items_of_an_array_are_explained() -> None:
    assert explain("matrix")[0].children == ("name", "set", "published")
    (key,) = explain("matrix.published.int8_top1")
    assert "top-1 of the INT8 model" in key.meaning
    assert not key.required


def test_object_lists_what_is_inside_it() -> None:
    found = explain("data.augment")
    assert found[0].children == ("crop", "scale", "ratio", "padding", "flip")
    assert [key.pointer for key in found[1:]] == [
        f"/data/augment/{name}" for name in found[0].children
    ]


@pytest.mark.parametrize(
    ("pointer", "near"),
    [
        ("quantise.moving_rate", "/quantize/moving_rate"),
        ("epochs", "/train/epochs"),
        ("train.epoch", "/train/epochs"),
        ("baseline.epochs", "/baseline/train/epochs"),
    ],
)
def test_unknown_key_suggests(pointer: str, near: str) -> None:
    with pytest.raises(UsageError, match=rf"\nDid you mean {near}\?"):
        explain(pointer)


def test_unknown_key_that_resembles_nothing() -> None:
    with pytest.raises(UsageError, match=r"/zzz\n[^?]*`job explain`[^?]*$"):
        explain("zzz")


def test_rendered_key() -> None:
    text = rendered("data.format")
    assert "/data/format" in text
    assert "none (required)" in text
    assert "one of digits, imagenet_list, class_folders, packed" in text


def test_rendered_text_is_not_taken_for_markup() -> None:
    assert "[3, 224, 224] or [1, 8, 8]" in rendered("model.input_shape")
    assert '["skip_quant"]' in rendered("quantize.not_quant_pattern")


def test_rendered_overview_fits_and_keeps_names_whole() -> None:
    lines = rendered(None, width=80).splitlines()
    assert max(len(line) for line in lines) <= 80
    for key in explain():
        assert any(line.split()[:1] == [key.name] for line in lines)
    assert any(line.startswith("    warmup_fraction") for line in lines)


def test_rendered_section_has_its_whole_meaning() -> None:
    text = " ".join(rendered("quantize.fallback").split())
    assert explain("quantize.fallback")[0].meaning in text
    assert "max_minutes" in text


def test_import_is_light() -> None:
    heavy = ["jsonschema", "rich", "paddle", "numpy"]
    code = f"import sys, job.cli.explain; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
