"""The form of a fake-quantized program that OpenVINO runs fastest, standalone or inside Paddle."""

from pathlib import Path

from job.engine.rewrites import rules
from job.engine.rewrites.network import Network, read_network

# The order matters: a merged pair can be moved, and a moved pair can be repeated.
STEPS = (
    rules.drop_repeated_ops,
    rules.merge_pairs,
    rules.drop_idle_pools,
    rules.transpose_weights,
    rules.quantize_before_reshapes,
    rules.drop_repeated_pairs,
    rules.drop_pairs_in_fused_sums,
    rules.use_unsigned_steps,
)


def in_openvino_form(fake_quantized: Path) -> Network:
    """Read a fake-quantized model, and rewrite it for OpenVINO.

    Args:
        fake_quantized: prefix of the fake-quantized model.
    """
    network = read_network(fake_quantized)
    for rewrite in STEPS:
        rewrite(network)
    return network
