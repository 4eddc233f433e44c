import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiers import full_but

import job
from job.engine.training import network_programs, programs, random_weights, session, zoo
from job.errors import UsageError
from job.manifest.rules import UNPUBLISHED

pytestmark = pytest.mark.engine

SCHEMA = json.loads((Path(job.__file__).parent / "schemas/manifest.schema.json").read_text())
NAMES = [n for n in SCHEMA["properties"]["model"]["properties"]["name"]["enum"] if n]
# One network of each family.
FAMILIES = [
    *("alexnet", "convnet", "densenet121", "googlenet", "inception_v3", "lenet", "mobilenet_v1"),
    *("mobilenet_v2", "mobilenet_v3_small", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_25"),
    *("squeezenet1_0", "vgg11", "wide_resnet50_2"),
]
WIDE = ["convnet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "vgg11"]


def channels(name):
    return 1 if name == "lenet" else 3


def parameters(name, width):
    with programs.static.program_guard(programs.Program(), programs.Program()):
        network = zoo.build(name, classes=3, channels=channels(name), width=width)
        return sum(math.prod(p.shape) for p in network.parameters())


def side(name):
    return 28 if name == "lenet" else 299 if name == "inception_v3" else 224


@pytest.mark.parametrize("name", full_but(NAMES, FAMILIES))
def test_every_name_of_the_schema_can_be_made(name):
    classifier = network_programs.from_network(
        lambda: zoo.build(name, classes=3, channels=channels(name)),
        input_shape=(channels(name), side(name), side(name)),
        classes=3,
        label_smoothing=0.1,
        seed=0,
    )
    block = classifier.evaluation.global_block()
    assert list(block.var(classifier.logits).shape) == [-1, 3]
    assert not any(
        op.type == "reshape2" and block.var(op.input("X")[0]).persistable for op in block.ops
    )
    weights = list(classifier.weight_names.values())
    assert set(weights) == set(programs.persistables(classifier.evaluation))
    assert 3 in block.var(weights[-1]).shape, "the last layer is not the classifier"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNPUBLISHED])
def test_published_weights_are_fetched_from_an_address_of_their_own(name, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        "paddle.utils.download.get_weights_path_from_url",
        lambda url, digest: fetched.append((url, digest)) or "cached.pdparams",
    )
    assert session.published_weights(name) == Path("cached.pdparams")
    ((url, digest),) = fetched
    file = Path(url).stem.lower().removesuffix("_pretrained").removesuffix("1.0")
    assert file.removesuffix("_x").replace("_", "") == name.replace("_", "")
    assert len(digest) == 32


@pytest.mark.parametrize("name", WIDE)
def test_width_changes_the_number_of_parameters(name):
    assert parameters(name, 0.5) < 0.6 * parameters(name, 1.0)


@pytest.mark.parametrize("name", ["densenet121", "googlenet", "lenet", "squeezenet1_0"])
def test_width_is_refused_where_there_is_none(name):
    with pytest.raises(UsageError, match=f"/model/width: .*{name}"):
        zoo.build(name, classes=3, channels=channels(name), width=0.5)


@pytest.mark.parametrize(("name", "count"), [("resnet18", 1), ("lenet", 3), ("vgg16", 4)])
def test_channel_count_is_refused(name, count):
    with pytest.raises(UsageError, match=f"/model/input_shape: .*{name}.* {count}"):
        zoo.build(name, classes=3, channels=count)


def test_images_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match=r"\[3, 96, 96\].*9216"):
        tiny.open_tiny(name="alexnet", input_shape=(3, 96, 96), width=1.0)


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("lenet", (1, 8, 8), r"\[1, 8, 8\].* conv2d_.* \[16, 0, 0\]"),
        ("squeezenet1_0", (3, 12, 12), r"\[3, 12, 12\].* 0\]"),
        ("inception_v3", (3, 32, 32), r"\[3, 32, 32\]"),
    ],
)
def test_images_that_shrink_to_nothing_are_refused_before_any_training(name, shape, says):
    with pytest.raises(UsageError, match=says):
        tiny.open_tiny(name=name, input_shape=shape, classes=3, width=1.0)


def test_drawn_weights_let_scores_depend_on_the_image():
    session = tiny.open_tiny(name="mobilenet_v1", input_shape=(3, 64, 64), width=0.25)
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype("float32")

    def scores():
        feed = {programs.IMAGE: images}
        return session.executor.run(
            session.classifier.evaluation, feed, [session.classifier.logits]
        )[0]

    with session.active():
        assert scores().std(0).max() < 1e-6
        random_weights.draw(session, 0)
        first = scores()
        random_weights.draw(session, 0)
        assert (scores() == first).all()
    assert 0.01 < first.std(0).max() < 100
