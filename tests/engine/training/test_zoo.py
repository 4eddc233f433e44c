import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
from tiers import full_but

import job
from job.engine.training import network_programs, network_weights, programs, random_weights, zoo
from job.engine.training.objective import Labels
from job.engine.weights.torch_names import for_paddle
from job.engine.weights.torchvision_names import torchvision_renamings, whole_name
from job.errors import UsageError
from job.manifest import parse
from job.manifest.rules import UNPUBLISHED
from job.manifest.task_rules import DETECTORS
from job.stages.baseline import load_weights

pytestmark = pytest.mark.engine

SCHEMA = json.loads((Path(job.__file__).parent / "schemas/manifest.schema.json").read_text())
NAMES = [n for n in SCHEMA["properties"]["model"]["properties"]["name"]["enum"] if n]
# Detectors have their own tests.
NAMES = [n for n in NAMES if n not in DETECTORS]
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


def torchvision_names(name):
    """Return the names of torchvision for the weights of a network, in the network's order."""
    with programs.static.program_guard(programs.Program(), programs.Program()):
        wanted = list(zoo.build(name, classes=1000, channels=3, width=1.0).state_dict())
    for rename in torchvision_renamings(wanted):
        names = [whole_name(each, rename) for each in wanted]
        if None not in names:
            return names
    return []


def side(name):
    return 28 if name == "lenet" else 299 if name == "inception_v3" else 224


@pytest.mark.parametrize("name", full_but(NAMES, FAMILIES))
def test_every_name_of_the_schema_can_be_made(name):
    classifier = network_programs.from_network(
        lambda: zoo.build(name, classes=3, channels=channels(name)),
        input_shape=(channels(name), side(name), side(name)),
        objective=Labels(3, 0.1),
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
    assert network_weights.published_weights(name) == Path("cached.pdparams")
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


@pytest.mark.parametrize(
    ("data", "folders", "given"),
    [("class_folders", {"train_dir": "photos"}, True), ("synthetic", {}, False)],
)
def test_random_weights_of_a_built_in_network_are_drawn(data, folders, given, tmp_path):
    session = tiny.open_tiny(name="mobilenet_v1", input_shape=(3, 64, 64), width=0.25)
    (tmp_path / "photos").mkdir()
    manifest = parse(
        {
            "version": 1,
            "name": "drawn",
            "model": {
                **{"name": "mobilenet_v1", "classes": 4, "input_shape": [3, 64, 64]},
                "random_weights": given,
            },
            "data": {"format": data, **folders},
            "baseline": {"train": {"max_iters": 0}},
            "train": {"max_iters": 0},
            "output": str(tmp_path / "out"),
        },
        "drawn",
        tmp_path,
    )
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype("float32")
    with session.active():
        load_weights(manifest, session, lambda *_: None)
        (scores,) = session.executor.run(
            session.classifier.evaluation, {programs.IMAGE: images}, [session.classifier.logits]
        )
    assert scores.std(0).max() > 0.01


def test_drawn_weights_do_not_saturate_gates():
    session = tiny.open_tiny(name="mobilenet_v3_small", input_shape=(3, 64, 64), width=1.0)
    evaluation = session.classifier.evaluation
    norms = [op for op in evaluation.global_block().ops if op.type == "batch_norm"]
    images = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype("float32")
    with session.active():
        random_weights.draw(session, 0)
        found = session.executor.run(
            evaluation, {programs.IMAGE: images}, [op.output("Y")[0] for op in norms]
        )
    assert len(norms) == 34
    for values in found:
        assert 0.15 < np.sqrt((values**2).mean()) < 0.45


def torchvision_resnet18():
    """Names and shapes of torchvision's ResNet18, as in its resnet.py."""

    def norm(name, channels):
        return {
            f"{name}.{suffix}": shape
            for suffix, shape in {
                "weight": (channels,),
                "bias": (channels,),
                "running_mean": (channels,),
                "running_var": (channels,),
                "num_batches_tracked": (),
            }.items()
        }

    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    inputs = 64
    for number, outputs in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            here = f"layer{number}.{block}"
            shapes |= {f"{here}.conv1.weight": (outputs, inputs, 3, 3)}
            shapes |= norm(f"{here}.bn1", outputs)
            shapes |= {f"{here}.conv2.weight": (outputs, outputs, 3, 3)}
            shapes |= norm(f"{here}.bn2", outputs)
            if inputs != outputs:
                shapes |= {f"{here}.downsample.0.weight": (outputs, inputs, 1, 1)}
                shapes |= norm(f"{here}.downsample.1", outputs)
            inputs = outputs
    return shapes | {"fc.weight": (1000, 512), "fc.bias": (1000,)}


def torchvision_vgg11():
    """Names and shapes of torchvision's VGG11, as in its vgg.py."""
    shapes, inputs, place = {}, 3, 0
    for step in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if step == "M":
            place += 1
            continue
        shapes |= {f"features.{place}.weight": (step, inputs, 3, 3)}
        shapes |= {f"features.{place}.bias": (step,)}
        inputs, place = step, place + 2
    for place, (rows, columns) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        shapes |= {f"classifier.{place}.weight": (rows, columns)}
        shapes |= {f"classifier.{place}.bias": (rows,)}
    return shapes


@pytest.mark.parametrize(
    ("name", "theirs"), [("resnet18", torchvision_resnet18), ("vgg11", torchvision_vgg11)]
)
def test_torchvisions_weights_fit(name, theirs):
    classifier = tiny.open_tiny(
        name=name, input_shape=(3, 224, 224), width=1.0, classes=1000
    ).classifier
    block = classifier.train.global_block()
    wanted = {key: tuple(block.var(it).shape) for key, it in classifier.weight_names.items()}
    zeros = {key: np.broadcast_to(np.float32(0), shape) for key, shape in theirs().items()}
    found = for_paddle(zeros, wanted, is_torch=True)
    assert {key: value.shape for key, value in found.items()} == wanted


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("alexnet", "de6e146dd04ce129"),
        ("densenet121", "6d9d65896d65ae02"),
        ("inception_v3", "ab626b4f582ce13c"),
        ("mobilenet_v3_small", "76cb3ef1516391c0"),
        ("shufflenet_v2_x0_5", "d1e2586ee791aac6"),
    ],
)
def test_names_of_torchvision(name, digest):
    """The digest is that of the names in torchvision 0.29.1, without auxiliary outputs.

    Both libraries list the weights in the order of the layers.
    """
    names = torchvision_names(name)
    assert hashlib.sha256("\n".join(names).encode()).hexdigest().startswith(digest)
