"""What oneDNN 3.6.2 logged of the first and last layers of ResNet50 at batch 1."""

from pathlib import Path

from job.profile import onednn_log

FOLDER = Path(__file__).parent / "onednn_logs"


def lines(model):
    """Of ``fp32`` or ``int8``."""
    return (FOLDER / f"resnet50_{model}.txt").read_text().splitlines()


def recorded(model):
    return onednn_log.parse(lines(model))


def made(kind="convolution", milliseconds=1.0, shape="mb1_ic64oc64_ih56oh56kh3", **changes):
    """A primitive in INT8 unless changed."""
    values = {
        "implementation": "brgconv:avx512_core_vnni",
        "data_type": "u8",
        "weights_type": "s8" if kind in onednn_log.COMPUTE else "",
        "target_type": "u8",
        "source_format": "acdb",
        "target_format": "acdb",
    }
    return onednn_log.Primitive(
        kind=kind, milliseconds=milliseconds, shape=shape, **{**values, **changes}
    )
