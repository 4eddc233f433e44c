"""Trains a network in PyTorch, one step for each line of input, for ``training.py --peer``.

It needs a Python environment with torch and torchvision, which the project does not install. The
network trains in eager mode, with PyTorch's quantization-aware training for x86 or in FP32. Each
answer is a line of JSON: the seconds of the step, and the peak memory of this process in bytes.
"""

import argparse
import json
import sys
import time
from typing import Any

import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization.quantize_fx import prepare_qat_fx
from torchvision import models

from job.process.memory import peak_rss_bytes

# Output channels and stride of each pair of a depthwise and a pointwise convolution.
# Source: table 1 of https://arxiv.org/abs/1704.04861
PAIRS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def main() -> None:
    """Answer each line of standard input with one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    for number in ("classes", "side", "batch", "threads"):
        parser.add_argument(f"--{number}", type=int, required=True)
    parser.add_argument("--fp32", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, options.side, options.side)
    labels = torch.randint(options.classes, (options.batch,))
    network = network_of(options.name, options.classes).train()
    if not options.fp32:
        settings = quantization.get_default_qat_qconfig_mapping("x86")
        network = prepare_qat_fx(network, settings, (images[:1],))
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)
    for _ in sys.stdin:
        began = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_rss_bytes()}), flush=True)


def network_of(name: str, classes: int) -> Any:
    """Return a network with random weights."""
    if name == "mobilenet_v1":
        return mobilenet_v1(classes)
    return getattr(models, name)(weights=None, num_classes=classes)


def mobilenet_v1(classes: int) -> nn.Sequential:
    """Return MobileNetV1 of width 1, which torchvision does not have."""
    layers, channels = convolution(3, 32, 3, stride=2), 32
    for wider, stride in PAIRS:
        layers += convolution(channels, channels, 3, stride=stride, groups=channels)
        layers += convolution(channels, wider, 1)
        channels = wider
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    return nn.Sequential(*layers, *head)


def convolution(channels: int, wider: int, side: int, **keys: int) -> list[nn.Module]:
    """Return a convolution with batch norm and ReLU."""
    return [
        nn.Conv2d(channels, wider, side, padding=side // 2, bias=False, **keys),
        nn.BatchNorm2d(wider),
        nn.ReLU(inplace=True),
    ]


if __name__ == "__main__":
    main()
