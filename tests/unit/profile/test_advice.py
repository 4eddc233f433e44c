"""Each rule of the advice: when it applies, and which names and figures its text holds."""

from dataclasses import replace

import pytest
from recorded_logs import made

from job.profile import breakdown
from job.profile.advice import advise
from job.profile.evidence import Evidence
from job.profile.layers import Layer

DEPTHWISE = "g32mb1_ic32oc32_ih56oh56kh3_iw56ow56kw3"
NARROW = "mb1_ic3oc16_ih32oh32kh3_iw32ow32kw3"
WIDE = "mb1ic25088oc4096"


def evidence(*primitives, layers=(), **changes):
    """Nine INT8 convolutions of 1 ms each, with more primitives."""
    executed = [*(made() for _ in range(9)), *primitives]
    values = {
        "isa_cap": "all",
        "batch_size": 1,
        "outside_ms": 1.0,
        "left_in_fp32": breakdown.left_in_fp32(executed, layers),
        "islands": [],
        "cpu_flags": ["avx2", "avx512_vnni"],
        "allocator": "glibc",
    }
    return Evidence(primitives=executed, layers=layers, **{**values, **changes})


def only(*primitives, **changes):
    """The text of the only advice."""
    (text,) = advise(evidence(*primitives, **changes))
    return text


def missing(text, *parts):
    """The parts that the text lacks, or does not hold in this order."""
    at, lacking = 0, []
    for part in parts:
        place = text.find(part, at)
        if place < 0:
            lacking.append(part)
        else:
            at = place + len(part)
    return lacking


def reorder(milliseconds, source="u8", target="u8", formats=("acdb", "acdb"), **changes):
    return made(
        "reorder",
        milliseconds,
        implementation="jit:uni",
        data_type=source,
        target_type=target,
        source_format=formats[0],
        target_format=formats[1],
        **changes,
    )


def test_no_advice_when_all_is_well():
    few = [reorder(0.2, "f32", "s8"), reorder(0.2), made("pooling", 0.1, data_type="f32")]
    slow = made(milliseconds=1.05)
    layers = [Layer("conv2d_0.tmp_0", made(), slow)]
    quick = evidence(*few, layers=layers, islands=[{"op": "linear_0.tmp_0", "type": "fc"}])
    assert advise(quick) == []


def test_little_of_a_call_is_not_worth_a_word():
    alone = [{"op": "linear_0.tmp_0", "type": "fc"}]
    slow = made(milliseconds=2.0)
    little = [reorder(2.0, "f32", "u8"), made("eltwise", 1.0), slow]
    layers = [Layer("conv2d_0.tmp_0", made(), slow)]
    text = only(*little, layers=layers, islands=alone, outside_ms=90.0)
    assert missing(text, "104 ms", "90.0 ms (87%)") == []


def test_what_matters_most_comes_first():
    isa, dispatch, reorders = advise(evidence(reorder(2.5), outside_ms=9.0, cpu_flags=["amx_int8"]))
    assert "avx512_core_amx" in isa
    assert "9.00 ms" in dispatch
    assert "copy 2.50 ms" in reorders
    reorders, dispatch = advise(evidence(reorder(9.0), outside_ms=8.0))
    assert "copy 9.00 ms" in reorders
    assert "8.00 ms" in dispatch


def test_reorders_are_counted_by_what_they_are_for():
    text = only(reorder(0.75, "s8"), reorder(0.5, "s8"), reorder(0.25))
    kinds = ["2 × change of sign 1.25 ms", "1 × copy 0.250 ms"]
    assert missing(text, "1.50 ms", "10.5 ms", "14%", *kinds, "/benchmark/engines") == []


def test_change_of_layout_names_the_formats():
    text = only(reorder(1.5, formats=("acdb", "abcd")))
    assert missing(text, "1 × change of layout 1.50 ms", "(acdb to abcd)") == []


def test_conversions_are_blamed_on_fp32_between():
    text = only(reorder(0.8, "u8", "f32"), reorder(0.8, "f32", "u8"))
    kinds = ["1 × dequantize 0.800 ms", "1 × quantize 0.800 ms"]
    assert missing(text, *kinds, "/quantize/quantize_op_types", "/int8/skip_ops") == []


def test_reorder_of_an_unknown_kind_has_no_remedy():
    text = only(reorder(1.5, "f32", "bf16"))
    assert missing(text, "1.50 ms", "10.5 ms", "14%") == []
    assert text.endswith("1 × other 1.50 ms.")


def test_time_outside_primitives():
    text = only(outside_ms=4.5, batch_size=8)
    assert missing(text, "13.5 ms", "4.50 ms (33%)", "9 primitives", "above 8", "jemalloc") == []
    assert "/benchmark/engines" in text
    assert "jemalloc" not in only(outside_ms=4.5, allocator="jemalloc")
    # ResNet50 at batch 1 would hold the tutorial's ratio without such a share.
    assert missing(only(outside_ms=1.5), "10.5 ms", "1.50 ms (14%)") == []


def test_layers_left_in_fp32_are_named():
    layer = made(milliseconds=1.5, data_type="f32", weights_type="f32")
    pool = made("pooling", 0.75, data_type="f32")
    text = only(layer, pool, layers=[Layer("conv2d_4.tmp_0", made(), layer)])
    ops = ["conv2d_4.tmp_0 1.50 ms", "pooling 0.750 ms"]
    assert missing(text, "2.25 ms (18% of a call)", *ops, "/int8/skip_ops") == []


def test_primitives_that_int8_does_not_support_give_no_advice_to_quantize_them():
    texts = advise(evidence(made("softmax", 3.0, data_type="f32")))
    assert not any("/quantize/quantize_op_types" in text for text in texts)


def test_layers_that_lose_by_int8():
    slow = made(milliseconds=2.0, shape=DEPTHWISE), made(milliseconds=1.6, shape=NARROW)
    layers = [
        Layer("conv2d_0.tmp_0", replace(slow[1], milliseconds=1.2), slow[1]),
        Layer("depthwise_conv2d_2.tmp_0", replace(slow[0], milliseconds=1.0), slow[0]),
        Layer("conv2d_9.tmp_0", made(milliseconds=0.95), made()),
        Layer("conv2d_10.tmp_0", None, made()),
    ]
    assert missing(
        only(*slow, layers=layers),
        "2 layers",
        "1.40 ms (10% of a call)",
        "depthwise_conv2d_2.tmp_0 0.50× (depthwise), conv2d_0.tmp_0 0.75× (3 channels)",
        '/int8/skip_ops ["depthwise_conv2d_2.tmp_0", "conv2d_0.tmp_0"]',
    ) == []  # fmt: skip


def test_slow_layers_without_names_are_named_by_shape():
    slow = made(milliseconds=3.0, shape=DEPTHWISE)
    text = only(slow, layers=[Layer("", replace(slow, milliseconds=1.5), slow)])
    assert missing(text, "3×3 depthwise 32, 56×56 0.50× (depthwise)", "/int8/skip_ops") == []
    assert "[" not in text


def test_reference_code():
    text = only(made(milliseconds=1.5, implementation="ref:any", shape=NARROW))
    assert missing(text, "reference", "convolution 3×3 3→16, 32×32", "1.50 ms", "16") == []


@pytest.mark.parametrize(
    ("flags", "cap", "better"),
    [
        (["avx512_vnni", "amx_int8"], "all", "avx512_core_amx"),
        (["avx512_vnni", "amx_int8"], "avx512_core_amx", "avx512_core_amx"),
        (["avx512_vnni", "amx_int8"], "avx512_core_vnni", None),
        (["avx512_vnni", "amx_int8"], "avx512_core_fp16", None),
        (["avx512_vnni"], "all", None),
        (["avx2"], "all", None),
    ],
)
def test_better_kernels_than_those_that_ran(flags, cap, better):
    texts = advise(evidence(cpu_flags=flags, isa_cap=cap))
    if better is None:
        assert texts == []
    else:
        assert missing(texts[0], "avx512_core_vnni", better, "ONEDNN_MAX_CPU_ISA") == []


def test_layers_that_wait_for_memory():
    text = only(made("inner_product", 6.0, shape=WIDE), batch_size=2)
    layer = "matrix product 25088→4096"
    assert missing(text, layer, "6.00 ms (38%", "98 MiB", "17.1 GB/s", "above 2") == []


def test_a_layer_with_much_work_for_each_byte_does_not_wait_for_memory():
    assert advise(evidence(made("inner_product", 6.0, shape="mb50ic25088oc4096"))) == []


def test_islands_are_named_when_conversions_cost():
    alone = [{"op": f"conv2d_{i}.tmp_0", "type": "fused_conv2d"} for i in range(7)]
    _, text = advise(evidence(reorder(1.5, "f32", "u8"), islands=alone))
    assert text.startswith("7 INT8 ops ")
    assert missing(text, "conv2d_0.tmp_0 (fused_conv2d)", "2 more", "1.50 ms (13% of a call)") == []
    assert text.endswith('"conv2d_3.tmp_0", "conv2d_4.tmp_0"].')


def test_ops_that_are_not_fused():
    apart = [made("eltwise", 0.6), made("eltwise", 0.6), made("binary", 0.4)]
    assert missing(only(*apart), "1.60 ms (14% of a call)", "2 × eltwise, 1 × binary") == []


def test_a_model_of_which_oneDNN_runs_nothing():  # noqa: N802
    empty = Evidence("all", 1, [], 0.0, [], [], [], ["amx_int8"], "glibc")
    assert advise(empty) == []
