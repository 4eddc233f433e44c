"""Scores of torchvision's networks in the job's networks, with the same random weights.

    PYTHON_WITH_TORCHVISION tests/compare_torchvision.py write FOLDER
    .venv/bin/python tests/compare_torchvision.py compare FOLDER

`write` needs a Python environment with torchvision, which the project does not install. It writes
the state dict of each network, two random images and their scores. `compare` loads the weights as
stage `baseline` does, and prints the largest difference, divided by the largest score.
"""

import sys
from pathlib import Path

import numpy as np

NETWORKS = (
    *("alexnet", "densenet121", "densenet161", "inception_v3", "mobilenet_v2"),
    *("mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5"),
    *("shufflenet_v2_x1_0", "vgg11"),
)
LARGEST_DIFFERENCE = 1e-4


def write(folder: Path) -> None:
    """Write NAME.pth and NAME.npz (``images``, ``scores``) of each network."""
    import torch
    from torchvision import models

    generator = torch.Generator().manual_seed(0)
    for name in NETWORKS:
        torch.manual_seed(0)
        keys = {"init_weights": True} if name == "inception_v3" else {}
        network = getattr(models, name)(weights=None, **keys).eval()
        # New batch norms have a mean of 0 and a variance of 1, which would hide a mistake.
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1, generator=generator)
                layer.running_var.uniform_(0.75, 1.25, generator=generator)
        side = 299 if name == "inception_v3" else 224
        images = torch.randn(2, 3, side, side, generator=generator)
        with torch.no_grad():
            scores = network(images)
        torch.save(network.state_dict(), folder / f"{name}.pth")
        np.savez(folder / f"{name}.npz", images=images.numpy(), scores=scores.numpy())


def compare(folder: Path) -> None:
    """Print the difference of each network; exit with code 1 if one of them is too large."""
    from job.engine.training.evaluation import Scorer
    from job.engine.training.network_weights import load_weights
    from job.engine.training.session import open_session

    worst = 0.0
    for name in NETWORKS:
        with np.load(folder / f"{name}.npz") as saved:
            images, expected = saved["images"], saved["scores"]
        session = open_session(
            name=name,
            callable_=None,
            inference_model=None,
            classes=1000,
            input_shape=images.shape[1:],
            width=1.0,
            seed=0,
            label_smoothing=0.0,
        )
        load_weights(session, folder / f"{name}.pth", sha256=None, reset_classifier=False)
        with session.active():
            classifier = session.classifier
            scorer = Scorer(classifier.evaluation, classifier.outputs, session.executor)
            (found,) = scorer.run(images)
        difference = float(np.abs(found - expected).max() / np.abs(expected).max())
        worst = max(worst, difference)
        print(f"{name:20} {difference:.2g}", flush=True)
    sys.exit(worst > LARGEST_DIFFERENCE)


if __name__ == "__main__":
    command, target = sys.argv[1:]
    {"write": write, "compare": compare}[command](Path(target))
