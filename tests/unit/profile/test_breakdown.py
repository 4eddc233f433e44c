"""Where the time goes: from recorded logs of oneDNN to figures."""

from dataclasses import replace

import pytest
from recorded_logs import made, recorded

from job.profile import breakdown, kinds
from job.profile.evidence import Evidence
from job.profile.layers import Layer, match
from job.profile.record import Recording

NAMES = {"convolution": [f"conv2d_{i}.tmp_0" for i in range(8)], "product": ["linear_0.tmp_0"]}


def evidence(primitives, layers=(), **changes):
    values = {
        "isa_cap": "all",
        "batch_size": 1,
        "outside_ms": 0.0,
        "left_in_fp32": breakdown.left_in_fp32(primitives, layers),
        "islands": [],
        "cpu_flags": ["avx512_vnni"],
        "allocator": "glibc",
    }
    return Evidence(primitives=primitives, layers=layers, **{**values, **changes})


@pytest.fixture
def figures():
    fp32, int8 = recorded("fp32"), recorded("int8")
    layers = match(fp32, int8, NAMES)
    whole = kinds.total_ms(fp32) + 3.5
    return breakdown.account(Recording(whole, fp32), evidence(int8, layers, outside_ms=2.5))


def test_kinds_of_a_recorded_log(figures):
    counts = {row["kind"]: row["count"] for row in figures["int8"]["kinds"]}
    assert counts == {
        "convolution": 8,
        "reorder: change of sign": 2,
        "matrix product": 1,
        "reorder: copy": 1,
        "pooling": 2,
        "reorder: quantize": 2,
        "reorder: change of layout": 2,
        "reorder: dequantize": 1,
    }
    times = [row["milliseconds"] for row in figures["int8"]["kinds"]]
    assert times == sorted(times, reverse=True)
    assert sum(times) == pytest.approx(figures["int8"]["milliseconds"], abs=1e-3)


def test_share_of_reorders_is_of_int8s_primitives(figures):
    spent = sum(
        row["milliseconds"] for row in figures["int8"]["kinds"] if row["kind"].startswith("reorder")
    )
    assert figures["reorder_share"] == pytest.approx(
        spent / figures["int8"]["milliseconds"], abs=1e-3
    )


def test_what_lies_outside_primitives(figures):
    assert figures["dispatch_ms"] == {"fp32": 3.5, "int8": 2.5}
    # A neighbour that disturbed the logged calls alone must not make time negative.
    assert breakdown.outside_ms(Recording(1.0, [made(milliseconds=1.5)])) == 0


def test_slowest_layers_stand_beside_fp32(figures):
    first = figures["slowest"][0]
    assert first == {
        "op": "conv2d_0.tmp_0",
        "shape": "mb1_ic3oc64_ih224oh112kh7sh2dh0ph3_iw224ow112kw7sw2dw0pw3",
        "fp32_ms": 5.39111,
        "int8_ms": 0.269043,
        "ratio": 20.038,
        "implementation": "brg_conv_fwd:avx10_1_512_amx",
        "folded": ["relu"],
    }
    assert len(figures["slowest"]) == 9
    times = [row["int8_ms"] for row in figures["slowest"]]
    assert times == sorted(times, reverse=True)


def test_left_in_fp32(figures):
    (pool,) = figures["left_in_fp32"]
    assert (pool["op"], pool["kind"], pool["milliseconds"]) == ("", "pooling", 0.0100098)
    layer = made(data_type="f32", weights_type="f32", milliseconds=3.0)
    ops = breakdown.left_in_fp32([layer, made("reorder")], [Layer("conv2d_9.tmp_0", None, layer)])
    assert ops == [("conv2d_9.tmp_0", layer)]


def test_only_the_ten_slowest_are_kept():
    layers = [Layer("", None, made(milliseconds=float(ms))) for ms in range(1, 13)]
    listed = breakdown.account(
        Recording(0.0, []), evidence([layer.int8 for layer in layers], layers)
    )["slowest"]
    assert [row["int8_ms"] for row in listed] == [float(ms) for ms in range(12, 2, -1)]
    assert listed[0]["fp32_ms"] is None
    assert listed[0]["ratio"] is None


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"data_type": "f32", "target_type": "s8"}, kinds.QUANTIZE),
        ({"data_type": "u8", "target_type": "f32"}, kinds.DEQUANTIZE),
        ({"data_type": "s8", "target_type": "u8", "is_scaled": True}, kinds.SIGN),
        ({"source_format": "abcd", "is_scaled": True}, kinds.LAYOUT),
        ({"data_type": "s8", "target_type": "s8", "is_scaled": True}, kinds.RESCALE),
        ({"data_type": "f32", "target_type": "f32"}, kinds.COPY),
        ({"data_type": "f32", "target_type": "bf16"}, kinds.REORDER),
    ],
)
def test_reorders_are_told_apart(changes, kind):
    assert kinds.kind_of(made("reorder", **changes)) == kind


def test_kinds_of_layers():
    assert kinds.kind_of(made(shape="g8mb1_ic8oc8_ih4oh4kh3")) == "depthwise convolution"
    assert kinds.kind_of(made("inner_product")) == "matrix product"
    assert kinds.kind_of(made("softmax")) == "softmax"


def test_equal_shapes_are_matched_in_order():
    one, other = made(shape="mb1ic8oc8"), made(shape="mb1ic8oc16")
    fp32 = [replace(one, milliseconds=m) for m in (4.0, 6.0)]
    int8 = [replace(one, milliseconds=m) for m in (1.0, 3.0)]
    layers = match(fp32, [int8[0], other, int8[1]], {"convolution": ["a", "b", "c"]})
    assert [(layer.name, layer.ratio) for layer in layers] == [("a", 4), ("b", None), ("c", 2)]


def test_names_are_unknown_when_some_layers_left_no_primitive():
    layers = match([], [made(), made("inner_product")], {"convolution": ["a", "b"]})
    assert [layer.name for layer in layers] == ["", ""]
