"""Each rule speaks with figures when it applies, and is silent otherwise."""

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
    ran = [*(made() for _ in range(9)), *primitives]
    values = {
        "isa_cap": "all",
        "batch_size": 1,
        "outside_ms": 1.0,
        "left_in_fp32": breakdown.left_in_fp32(ran, layers),
        "islands": [],
        "cpu_flags": ["avx2", "avx512_vnni"],
        "allocator": "glibc",
    }
    return Evidence(primitives=ran, layers=layers, **{**values, **changes})


def told(*primitives, **changes):
    """The only advice."""
    (sentence,) = advise(evidence(*primitives, **changes))
    return sentence


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
    found = evidence(*few, layers=layers, islands=[{"op": "linear_0.tmp_0", "type": "fc"}])
    assert advise(found) == []


def test_little_of_a_call_is_not_worth_a_word():
    alone = [{"op": "linear_0.tmp_0", "type": "fc"}]
    slow = made(milliseconds=2.0)
    little = [reorder(2.0, "f32", "u8"), made("eltwise", 1.0), slow]
    layers = [Layer("conv2d_0.tmp_0", made(), slow)]
    (sentence,) = advise(evidence(*little, layers=layers, islands=alone, outside_ms=90.0))
    assert sentence.startswith("Of INT8's 104 ms a call, 90.0 ms (87%) lie outside")


def test_what_matters_most_comes_first():
    found = advise(evidence(reorder(1.5), outside_ms=9.0, cpu_flags=["amx_int8"]))
    assert [text.split()[0] for text in found] == ["INT8", "Of", "Reorders"]
    found = advise(evidence(reorder(9.0), outside_ms=8.0))
    assert [text.split()[0] for text in found] == ["Reorders", "Of"]


def test_reorders_are_counted_by_what_they_are_for():
    sentence = told(reorder(0.75, "s8"), reorder(0.5, "s8"), reorder(0.25))
    assert sentence.startswith(
        "Reorders take 1.50 of the 10.5 ms in INT8's primitives (14%): 2 × change of sign 1.25 ms, "
        "1 × copy 0.250 ms. A sum is written in its residual's type"
    )
    assert "/benchmark/engines" in sentence


def test_change_of_layout_names_the_formats():
    sentence = told(reorder(1.5, formats=("acdb", "abcd")))
    assert "1 × change of layout 1.50 ms. Neighbours want different orders" in sentence
    assert "(acdb to abcd)" in sentence


def test_conversions_are_blamed_on_fp32_between():
    sentence = told(reorder(0.8, "u8", "f32"), reorder(0.8, "f32", "u8"))
    assert "1 × dequantize 0.800 ms, 1 × quantize 0.800 ms. Values are converted" in sentence
    assert "/quantize/quantize_op_types" in sentence


def test_reorder_of_an_unknown_kind_is_told_without_a_cure():
    sentence = told(reorder(1.5, "f32", "bf16"))
    assert sentence == (
        "Reorders take 1.50 of the 10.5 ms in INT8's primitives (14%): 1 × other 1.50 ms."
    )


def test_time_outside_primitives():
    sentence = told(outside_ms=4.5, batch_size=8)
    assert sentence.startswith("Of INT8's 13.5 ms a call, 4.50 ms (33%) lie outside")
    assert "dispatch of 9 of them" in sentence
    assert "A larger batch than 8" in sentence
    assert "jemalloc" in sentence
    assert "/benchmark/engines" in sentence
    assert "jemalloc" not in told(outside_ms=4.5, allocator="jemalloc")
    # ResNet50 at batch 1 would hold the tutorial's ratio without such a share.
    assert told(outside_ms=1.5).startswith("Of INT8's 10.5 ms a call, 1.50 ms (14%) lie outside")


def test_layers_left_in_fp32_are_named():
    layer = made(milliseconds=0.5, data_type="f32", weights_type="f32")
    pool = made("pooling", 0.25, data_type="f32")
    sentence = told(layer, pool, layers=[Layer("conv2d_4.tmp_0", made(), layer)])
    assert sentence.startswith(
        "Left in FP32: 2 ops with 0.750 ms (7% of a call), conv2d_4.tmp_0 0.500 ms, pooling 0.250 "
        "ms. The audit says why"
    )
    assert "/int8/skip_ops" in sentence


def test_layers_that_lose_by_int8():
    slow = made(milliseconds=0.5, shape=DEPTHWISE), made(milliseconds=0.4, shape=NARROW)
    layers = [
        Layer("conv2d_0.tmp_0", replace(slow[1], milliseconds=0.3), slow[1]),
        Layer("depthwise_conv2d_2.tmp_0", replace(slow[0], milliseconds=0.25), slow[0]),
        Layer("conv2d_9.tmp_0", made(milliseconds=0.95), made()),
        Layer("conv2d_10.tmp_0", None, made()),
    ]
    sentence = told(*slow, layers=layers)
    assert sentence.startswith(
        "Slower in INT8 than in FP32: 2 layers that lose 0.350 ms (3% of a call), "
        "depthwise_conv2d_2.tmp_0 0.50× (depthwise), conv2d_0.tmp_0 0.75× (3 channels). "
        'Leave them in FP32: /int8/skip_ops ["depthwise_conv2d_2.tmp_0", "conv2d_0.tmp_0"]'
    )


def test_slow_layers_without_names_are_told_by_shape():
    slow = made(milliseconds=1.0, shape=DEPTHWISE)
    sentence = told(slow, layers=[Layer("", replace(slow, milliseconds=0.5), slow)])
    assert "3×3 depthwise 32, 56×56 0.50× (depthwise). Leave them in FP32 by /int8" in sentence


def test_reference_code():
    sentence = told(made(milliseconds=0.75, implementation="ref:any", shape=NARROW))
    assert sentence.startswith(
        "oneDNN has only its reference code for convolution 3×3 3→16, 32×32, which takes 0.750 ms"
    )


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
    found = advise(evidence(cpu_flags=flags, isa_cap=cap))
    if better is None:
        assert found == []
    else:
        assert found[0].startswith(f"INT8 runs on avx512_core_vnni though this CPU has {better}:")


def test_layers_that_wait_for_memory():
    sentence = told(made("inner_product", 6.0, shape=WIDE), batch_size=2)
    assert sentence.startswith(
        "Memory's speed bounds matrix product 25088→4096: 6.00 ms (38% of a call) to read and "
        "write 98 MiB at 17.1 GB/s."
    )
    assert "a larger batch than 2" in sentence


def test_a_layer_with_much_work_for_each_byte_does_not_wait_for_memory():
    assert advise(evidence(made("inner_product", 6.0, shape="mb50ic25088oc4096"))) == []


def test_islands_are_named_when_conversions_cost():
    alone = [{"op": f"conv2d_{i}.tmp_0", "type": "fused_conv2d"} for i in range(7)]
    sentence = told(reorder(0.6, "f32", "u8"), islands=alone)
    assert sentence.startswith(
        "7 INT8 ops without INT8 neighbours: conv2d_0.tmp_0 (fused_conv2d), "
    )
    assert "and 2 more; all conversions to and from INT8 take 0.600 ms (6% of a call)." in sentence
    assert sentence.endswith('"conv2d_3.tmp_0", "conv2d_4.tmp_0"].')


def test_ops_that_nothing_took_in():
    apart = [made("eltwise", 0.3), made("eltwise", 0.3), made("binary", 0.2)]
    assert told(*apart).startswith(
        "Ops that no convolution took in take 0.800 ms (7% of a call): 2 × eltwise, 1 × binary."
    )


def test_a_model_of_which_oneDNN_runs_nothing():  # noqa: N802
    empty = Evidence("all", 1, [], 0.0, [], [], [], ["amx_int8"], "glibc")
    assert advise(empty) == []
