"""A detector is trained, quantized and written with all of its outputs, heads in FP32."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from job.data import packed, packed_objects
from job.data.loader import Batch
from job.data.scene_images import digit_scenes
from job.detection.decode import Head, Selection
from job.engine.inference import predictor
from job.engine.inference.detector_heads import heads_of
from job.engine.int8 import build as int8
from job.engine.quantize import qat
from job.engine.quantize.calibration import Method
from job.engine.training import baseline, programs
from job.engine.training.heads import graph_of
from job.engine.training.schedule import Schedule
from job.engine.training.session import open_session
from job.errors import DataError
from job.tasks.detection import detection_task
from job.tasks.outputs import OUTPUTS
from job.tasks.task import flat

# The fixture takes a minute of CPU time.
pytestmark = [pytest.mark.engine, pytest.mark.full]

SIDE, CLASSES, WIDTH = 64, 10, 0.125
SHAPE = (3, SIDE, SIDE)
HEADS = (
    Head(32, ((90.0, 90.0),)),
    Head(16, ((40.0, 52.0), (60.0, 72.0))),
    Head(8, ((15.0, 20.0),)),
)
TASK = detection_task(HEADS, size=(SIDE, SIDE), classes=CLASSES, settings=Selection())
SETTINGS = {**tiny.SETTINGS, "not_quant_pattern": []}


class Scenes:
    """A loader of a few scenes."""

    batches_per_epoch, identity = 2, "scenes"

    def __init__(self, batch: int = 2) -> None:
        source = digit_scenes(SHAPE)["train"]
        pairs = [source.read_labelled(number) for number in range(batch * self.batches_per_epoch)]
        pixels = np.stack([image for image, _ in pairs]).transpose(0, 3, 1, 2)
        self.images = (pixels / 127.5 - 1).astype("float32")
        self.objects = [objects for _, objects in pairs]
        self.batch = batch

    def batches(self, epoch: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        for number in range(start_batch, self.batches_per_epoch):
            part = slice(number * self.batch, (number + 1) * self.batch)
            none = np.zeros(self.batch, np.int64)
            yield Batch(self.images[part], none, none, tuple(self.objects[part]))

    def pack(self, path):
        labels = np.zeros(len(self.images), np.int64)
        packed.write(path, [(self.images, labels)], shape=SHAPE, transform="scenes")
        packed_objects.write(path, self.objects)
        return path


def open_detector(**changes):
    values = {
        "name": "yolov3_mobilenet_v1", "callable_": None, "inference_model": None,
        "classes": CLASSES, "input_shape": SHAPE, "width": WIDTH, "seed": 0,
        "label_smoothing": 0.0, "task": TASK,
    }  # fmt: skip
    return open_session(**{**values, **changes})


def recipe(steps, rate):
    schedule = Schedule("constant", rate, (), 1.0, 0.0)
    return tiny.recipe(max_iters=steps, optimizer="adam", weight_decay=0.0, schedule=schedule)


def run(prefix, mode, images):
    return predictor.Predictor(predictor.configuration(prefix, mode, threads=1)).outputs(images)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train, quantize with training, and convert."""
    folder = tmp_path_factory.mktemp("detector")
    for name in ("fp32", "start", "qat", "fake", "int8"):
        (folder / name).mkdir()
    scenes = Scenes()
    selection = scenes.pack(folder / "selection.bin")
    session = open_detector()
    training = baseline.train(
        session, recipe(4, 0.005), loader=scenes,
        selection=selection, out=folder / "fp32", events=tiny.News(),
    )  # fmt: skip
    baseline.export(session, folder / "fp32")
    weights = folder / "fp32/weights.npz"
    method = Method(gptq=False)
    qat.write_start(
        open_detector(), SETTINGS, method, weights=weights, pact=False, calibration=selection,
        out=folder / "start", progress=lambda *_: None,
    )  # fmt: skip
    quantized = qat.train(
        open_detector(), recipe(1, 1e-5), SETTINGS,
        weights=weights, pact=False, start=folder / "start" / qat.START, freeze_bn_stats=True,
        loss="labels", loader=scenes, selection=selection, out=folder / "qat",
        events=tiny.News(),
    )  # fmt: skip
    qat.convert(
        open_detector(), SETTINGS, best=folder / "qat/best.npz", pact=False, out=folder / "fake"
    )
    audit, outputs = int8.build(
        folder / "fake/model", folder / "int8", SETTINGS["quantize_op_types"], scenes.images
    )
    return SimpleNamespace(
        folder=folder, scenes=scenes, training=training, quantized=quantized, audit=audit,
        outputs=outputs,
    )  # fmt: skip


def test_training_lowers_the_loss_and_selects_by_map(made):
    losses = [line["loss"] for line in made.training["history"]]
    # Two batches in turn: without learning, each loss would be seen again.
    assert losses[2] < losses[0]
    assert losses[3] < losses[1]
    for record in (made.training, made.quantized):
        assert record["selected_by"] == "map"
        assert record["best_map"] == max(each["map"] for each in record["evaluations"])
    assert made.quantized["evaluations"][0]["signal_to_noise_db"] > 10


def test_all_but_the_heads_run_in_int8(made):
    assert (made.audit.int8_ops, made.audit.fp32_ops) == (47, 3)
    assert made.audit.folded["batch_norm"] == 47
    assert made.audit.folded["activation"] == 47
    types = {each["type"]: each["count"] for each in made.audit.types_in_fp32}
    assert types == {"concat": 2, "nearest_interp_v2": 2}


def test_saved_models_have_all_outputs(made):
    images = made.scenes.images
    fp32 = run(made.folder / "fp32/model", predictor.ONEDNN, images)
    assert [each.shape[1:] for each in fp32] == [
        (len(head.anchors) * (5 + CLASSES), SIDE // head.stride, SIDE // head.stride)
        for head in HEADS
    ]
    fake = run(made.folder / "fake/model", predictor.FAKE_QUANTIZED, images)
    saved = run(made.folder / "int8/model", predictor.INT8, images)
    for one, other in ((fake, fp32), (made.outputs, fake), (saved, made.outputs)):
        assert TASK.agreement(one, other).signal_to_noise_db > 15


def test_a_saved_model_can_be_quantized_again_without_training(made):
    saved = open_detector(name=None, inference_model=made.folder / "fp32/model")
    images = made.scenes.images
    with saved.active():
        classifier = saved.classifier
        found = saved.executor.run(
            classifier.evaluation, {programs.IMAGE: images}, list(classifier.outputs)
        )
    expected = run(made.folder / "fp32/model", predictor.NATIVE, images)
    np.testing.assert_allclose(flat(tuple(found)), flat(expected), atol=1e-4)
    heads = heads_of(graph_of(classifier.evaluation), classifier.outputs)
    assert sum(op.type == "conv2d" for op in heads) == 3


def test_other_anchors_or_classes_are_rejected(made):
    with pytest.raises(DataError, match="anchors") as caught:
        open_detector(name=None, inference_model=made.folder / "fp32/model", classes=3)
    assert "/detection/anchors" in caught.value.hint


def test_the_outputs_of_a_detector_can_be_compared_without_objects(made):
    session = open_detector(name=None, inference_model=made.folder / "fp32/model", task=OUTPUTS)
    assert len(session.classifier.outputs) == 3
    assert session.feeds == ()
