from dataclasses import replace

import pytest
from recorded_logs import recorded

from job.profile import onednn_log

EXECUTED = "onednn_verbose,v1,primitive,exec,cpu"
CONVOLUTION = "convolution,brgconv:avx512_core_vnni,forward_inference"
INT8_TYPES = "src:u8::blocked:acdb::f0 wei:s8:ap:blocked:ABcd::f0 bia:f32::blocked:a::f0"
PRODUCT = "inner_product,brgemm:avx512_core_amx,forward_inference"
LOG = [
    "onednn_verbose,v1,info,oneDNN v3.6.2 (commit abc)",
    "onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation",
    f"onednn_verbose,v1,primitive,create:cache_miss,cpu,{CONVOLUTION},{INT8_TYPES},attr,,mb1,1.0",
    f"{EXECUTED},reorder,jit:uni,undef,src:f32::blocked:acdb::f0 dst:u8::f0,attr,,1x3x8x8,0.5",
    f"{EXECUTED},{CONVOLUTION},{INT8_TYPES},attr,alg:convolution_direct,mb1,0.25",
    f"{EXECUTED},{PRODUCT},src:u8::f0 wei:s8::f0 dst:f32::f0,attr,,mb1ic8oc10,0.125",
    "some other line",
    f"{EXECUTED},pooling,jit:avx512_core,forward_inference,src:u8::f0,attr,alg:max,mb1,0.0625",
]


def made(kind="convolution", implementation="brgconv:avx512_core_vnni", data="u8", weights="s8"):
    return onednn_log.Primitive(kind, implementation, data, weights, 0.5)


def test_parse_reads_executions_only():
    primitives = onednn_log.parse(LOG)
    assert [p.kind for p in primitives] == ["reorder", "convolution", "inner_product", "pooling"]
    assert [p.is_int8 for p in primitives] == [False, True, True, False]
    assert primitives[1].isa == "avx512_core_vnni"
    assert primitives[1].milliseconds == 0.25
    assert primitives[0].isa == ""


def test_isa_is_that_of_int8_kernels_if_it_is_known():
    fp32 = made(implementation="jit:avx512_core_amx", data="f32", weights="f32")
    assert onednn_log.int8_isa([made(), fp32]) == "avx512_core_vnni"
    assert onednn_log.int8_isa([made(implementation="ref:any"), fp32]) == "avx512_core_amx"
    assert onednn_log.int8_isa([]) == "none"


def test_parse_reads_the_log_of_paddles_openvino_engine():
    line = (
        "onednn_verbose,primitive,exec,cpu,convolution,jit_uni_int8:avx2,forward_inference,"
        "src_u8::blocked:acdb::f0 wei_s8:ap:blocked:ABcd2b8a4b::f0 dst_s8::blocked:abcd::f0,"
        "attr-scratchpad:user attr-scales:dst:0:f32 attr-post-ops:eltwise_relu,"
        "alg:convolution_direct,mb4_ic1oc8_ih8oh8,0.0625"
    )
    (found,) = onednn_log.parse([line])
    assert (found.data_type, found.weights_type, found.target_type) == ("u8", "s8", "s8")
    assert (found.source_format, found.target_format) == ("acdb", "abcd")
    assert found.is_int8
    assert (found.isa, found.shape, found.post_ops) == ("avx2", "mb4_ic1oc8_ih8oh8", ("relu",))


@pytest.mark.parametrize(
    ("data", "weights", "expected"),
    [("u8", "s8", True), ("s8", "s8", True), ("f32", "f32", False), ("u8", "", False)],
)
def test_int8_needs_both_operands(data, weights, expected):
    assert made(data=data, weights=weights).is_int8 is expected


def test_parse_reads_shapes_types_and_formats():
    first, layout, convolution, pool, *_ = recorded("int8")
    assert (first.data_type, first.target_type, first.is_scaled) == ("f32", "s8", True)
    assert (layout.source_format, layout.target_format) == ("abcd", "acdb")
    assert layout.shape == "1x3x224x224"
    assert not layout.is_scaled
    assert convolution.shape == "mb1_ic3oc64_ih224oh112kh7sh2dh0ph3_iw224ow112kw7sw2dw0pw3"
    assert (convolution.weights_type, convolution.target_type) == ("s8", "u8")
    assert convolution.is_int8
    assert (pool.kind, pool.post_ops) == ("pooling", ())


def test_parse_reads_an_activation_that_is_not_folded():
    line = (
        "onednn_verbose,v1,primitive,exec,cpu,eltwise,jit:avx2,forward_training,"
        "data:f32::blocked:acdb::f0,,alg:eltwise_hardswish alpha:0.166667 beta:0.5,"
        "1x16x64x80,0.0388184"
    )
    (found,) = onednn_log.parse([line])
    assert (found.data_type, found.source_format) == ("f32", "acdb")
    assert (found.target_type, found.target_format) == ("f32", "acdb")
    assert onednn_log.summarize([found])[0]["data_type"] == "f32"


def test_parse_reads_what_was_folded():
    folded = [p.post_ops for p in recorded("int8") if p.kind in onednn_log.COMPUTE]
    assert folded == [
        ("relu",),
        ("relu",),
        ("relu",),
        (),
        ("sum", "relu"),
        ("relu",),
        ("relu",),
        ("sum", "relu"),
        ("linear",),
    ]


def test_last_run_leaves_out_what_came_before():
    once = [made("reorder"), made(), made("pooling"), made("inner_product")]
    first = [made("reorder"), made("reorder"), *once]
    assert onednn_log.last_run([*first, *once, *once], runs=3) == once
    assert onednn_log.last_run([made("reorder")], runs=2) == []
    assert onednn_log.last_run([made()], runs=2) == []


def test_calls_are_told_apart():
    log = [
        *LOG[:2],
        "timed_call_ms=8.5",
        "timed_call_ms=8.25",
        *LOG,
        "logged_call_ms=9.5",
        LOG[3],
        "logged_call_ms=9",
        "a farewell",
    ]
    milliseconds, calls = onednn_log.calls_in(log)
    assert milliseconds == [8.5, 8.25]
    assert [len(call) for call in calls] == [4, 1]


def test_typical_call_has_the_median_times_of_calls_alike():
    def call(*milliseconds):
        kinds = ("reorder", "convolution")
        return [replace(made(k), milliseconds=m) for k, m in zip(kinds, milliseconds, strict=True)]

    other = [made("reorder")]
    primitives = onednn_log.typical([other, call(1, 40), call(3, 20), call(2, 10)])
    assert [p.kind for p in primitives] == ["reorder", "convolution"]
    assert [p.milliseconds for p in primitives] == [2, 20]
    assert onednn_log.typical([[], []]) == []


def test_isa_is_the_highest_of_the_computing_primitives():
    mixed = [
        made(),
        made(implementation="brgemm:avx512_core_amx"),
        made("pooling", "jit:avx512_core_amx_fp16"),
    ]
    assert onednn_log.isa(mixed) == "avx512_core_amx"
    assert onednn_log.isa([made("reorder")]) == ""


def test_newer_names_of_an_isa_are_the_same_isa():
    made = onednn_log.Primitive("convolution", "brgconv:avx10_1_512_amx", "u8", "s8", 1.0)
    assert made.isa == "avx512_core_amx"


def test_summary_is_sorted_by_time():
    rows = onednn_log.summarize([made(), made("pooling"), made()])
    assert [(row["kind"], row["count"], row["milliseconds"]) for row in rows] == [
        ("convolution", 2, 1.0),
        ("pooling", 1, 0.5),
    ]


def test_a_tensor_named_data_is_the_source() -> None:
    line = (
        "onednn_verbose,v1,primitive,exec,cpu,eltwise,jit:avx2,forward_inference,"
        "data:f32::blocked:abcd::f0,attr-scratchpad:user,alg:eltwise_exp alpha:0 beta:0,1x4,0.01"
    )
    (primitive,) = onednn_log.parse([line])
    assert primitive.data_type == "f32"
