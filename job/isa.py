"""Names and order of the instruction sets (ISAs), and how to cap the ISA of a process."""

ISA_ORDER = (
    "sse41",
    "avx2",
    "avx2_vnni",
    "avx2_vnni_2",
    "avx512_core",
    "avx512_core_vnni",
    "avx512_core_bf16",
    "avx512_core_fp16",
    "avx512_core_amx",
    "avx512_core_amx_fp16",
)


# Newer names of three ISAs, which oneDNN's log uses:
# https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
ISA_ALIASES = {
    "avx10_1_512": "avx512_core_fp16",
    "avx10_1_512_amx": "avx512_core_amx",
    "avx10_1_512_amx_fp16": "avx512_core_amx_fp16",
}


# Variables that users set to cap oneDNN's kernels; the second is the older name.
CAP_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def isa_environment(cap: str) -> dict[str, str]:
    """Return environment variables that cap the ISA of a process's kernels.

    Args:
        cap: a value of the manifest's ``benchmark.isa``; ``all`` sets no cap.
    """
    if cap == "all":
        return {}
    # https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
    variables = {"ONEDNN_MAX_CPU_ISA": cap.upper()}
    if cap == "avx2":
        # Paddle's native FP32 kernels call MKL, which ignores oneDNN's cap.
        variables["MKL_ENABLE_INSTRUCTIONS"] = "AVX2"
    return variables
