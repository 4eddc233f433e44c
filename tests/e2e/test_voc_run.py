"""The manifest for Pascal VOC, from the backbone's weights to the report, on a small data set."""

import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from data_fakes import save_image
from object_sets import IMAGE, Box, annotation
from tiny_run import job, record_of, report_of

# The run takes a minute of CPU time.
pytestmark = [pytest.mark.e2e, pytest.mark.full]

MANIFEST = Path(__file__).parents[2] / "manifests/yolov3_mobilenet_v1_voc.json"
CLASSES = [f"class{number:02}" for number in range(20)]
SIDE, WIDTH = 64, 0.125
# Every other key is the manifest's own.
SMALL: Mapping[str, str] = {
    "model.input_shape": f"[3,{SIDE},{SIDE}]",
    "model.width": f"{WIDTH}",
    "detection.augment.sizes": f"[{SIDE - 32},{SIDE}]",
    "baseline.train.max_iters": "3",
    "baseline.train.batch_size": "2",
    "train.max_iters": "2",
    "train.batch_size": "2",
    "data.calibration_images": "4",
    "data.workers": "1",
    "quantize.weight_rounding": "nearest",
    "benchmark.engines": '["paddle"]',
    "benchmark.min_seconds": "0.2",
    "benchmark.rounds": "2",
    "benchmark.warmup_batches": "1",
    # The speedup of so small a network on a busy machine shows nothing.
    "gates.min_speedup": "null",
}


def voc_tree(root: Path) -> None:
    """Write images, annotations and lists with both paths, as PaddleDetection reads them."""
    for number in range(10):
        boxes: list[Box] = [
            (CLASSES[(5 * number + place) % 20], (1 + place, 2, 20 + 4 * place, 28), "")
            for place in range(5)
        ]
        save_image(root / f"JPEGImages/{number}.jpg", number, IMAGE)
        path = root / f"Annotations/{number}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(annotation(boxes))
    for name, numbers in (("trainval", range(6)), ("test", range(6, 10))):
        lines = [f"JPEGImages/{number}.jpg Annotations/{number}.xml\n" for number in numbers]
        (root / f"{name}.txt").write_text("".join(lines))


def write_backbone(path: Path) -> None:
    """Write weights of MobileNetV1 with PaddleDetection's names, as for ImageNet."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}

    def layer(name: str, outputs: int, inputs: int, size: int) -> None:
        std = (2 / (inputs * size * size)) ** 0.5
        shape = (outputs, inputs, size, size)
        weights[f"{name}._conv.weight"] = random.normal(0, std, shape).astype("float32")
        for key, value in (("weight", 1), ("bias", 0), ("_mean", 0), ("_variance", 1)):
            weights[f"{name}._batch_norm.{key}"] = np.full(outputs, value, "float32")

    channels = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    sides = [int(count * WIDTH) for count in channels]
    blocks = ["2_1", "2_2", "3_1", "3_2", "4_1", "4_2", *(f"5_{n}" for n in range(1, 7)), "6"]
    layer("conv1", sides[0], 3, 3)
    for block, inputs, outputs in zip(blocks, sides, sides[1:], strict=False):
        layer(f"conv{block}._depthwise_conv", inputs, 1, 3)
        layer(f"conv{block}._pointwise_conv", outputs, inputs, 1)
    weights["fc.weight"] = np.zeros((sides[-1], 1000), "float32")
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(weights))


def test_the_manifest_runs_on_a_small_data_set(tmp_path: Path) -> None:
    shutil.copy(MANIFEST, tmp_path / "m.json")
    voc_tree(tmp_path / "voc")
    write_backbone(tmp_path / "weights/MobileNetV1_pretrained.pdparams")
    options = [text for key, value in SMALL.items() for text in ("--set", f"{key}={value}")]
    done = job("run", "m.json", *options, "--output", "out", cwd=tmp_path)
    assert "fc.weight" in done.err  # the classifier of the backbone is not used
    report = report_of(tmp_path / "out")
    assert [report["data"]["splits"][name]["images"] for name in ("train", "test")] == [5, 4]
    assert (report["audit"]["int8_ops"], report["audit"]["fp32_ops"]) == (47, 3)
    accuracy = report["accuracy"]
    assert all(0 <= accuracy[name]["map"] <= 100 for name in ("fp32", "qat_fake", "int8"))
    baseline = record_of(tmp_path / "out", "fp32")["training"]
    # The milestones are 55/70 and 62/70 of the steps, and 10/30 with quantization.
    assert [step["lr"] for step in baseline["history"]] == pytest.approx([1e-3, 1e-3, 1e-4])
    quantized = record_of(tmp_path / "out", "qat")["training"]
    assert [step["lr"] for step in quantized["history"]] == pytest.approx([1e-4, 1e-5])
    page = (tmp_path / "out/report.html").read_text()
    assert "mAP" in page
