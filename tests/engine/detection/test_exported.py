"""Exported detectors: decoding and NMS inside or outside, inputs in any order."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tiny_detectors
from tiny_detectors import ANCHORS, CLASSES, KINDS, ORDER, SIDE, export

from job.detection.decode import Head, Selection, decode_all
from job.engine.inference import whole_detector
from job.engine.inference.detector import open_detector
from job.engine.inference.paddle_format import read_program
from job.engine.inference.pir_format import legacy_model
from job.engine.inference.predictor import NATIVE, ONEDNN, Predictor, configuration
from job.engine.inference.saved_model import NETWORK
from job.engine.training import baseline
from job.engine.training.session import open_session
from job.errors import DataError, QuantizationError
from job.process.environment import environment
from job.tasks.detection import detection_task
from job.tasks.outputs import OUTPUTS

pytestmark = pytest.mark.engine

HEADS = tuple(
    Head(stride, tuple((float(w), float(h)) for w, h in anchors))
    for stride, anchors in reversed(ANCHORS.items())
)
TASK = detection_task(HEADS, size=(SIDE, SIDE), classes=CLASSES, settings=Selection())


def open_exported(prefix, task=TASK):
    return open_session(
        name=None, callable_=None, inference_model=prefix, classes=CLASSES,
        input_shape=(3, SIDE, SIDE), width=1.0, seed=0, label_smoothing=0.0, task=task,
    )  # fmt: skip


def run_exported(prefix, given):
    """Return the names of inputs and outputs, and the outputs of an exported detector."""
    with legacy_model(prefix) as legacy:
        model = open_detector(legacy, NATIVE, threads=1)
        return model.inputs, model.names, model.run(given)


def completed(prefix, out, given, task=TASK):
    """Save the network of an exported detector, and add its decoding."""
    out.mkdir()
    baseline.export(open_exported(prefix, task), out)
    return whole_detector.complete(out / "model", prefix, given["image"], ONEDNN)


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        ("nms", ORDER),
        ("two_outputs", ("image", "scale_factor", "im_shape")),
        ("matrix", ("scale_factor", "im_shape", "image")),
        ("decoded", ORDER),
        ("unused_sizes", ("image",)),
    ],
)
def test_the_whole_detector_has_the_inputs_and_outputs_of_the_export(tmp_path, kind, order):
    given = export(tmp_path / "exported", kind, order=order)
    record, kinds = completed(tmp_path / "exported", tmp_path / "fp32", given)
    network = Predictor(configuration(tmp_path / "fp32/model", NATIVE, threads=1))
    for place, output in enumerate(network.outputs(given["image"])):
        np.testing.assert_allclose(output, given[str(place)], rtol=1e-4, atol=1e-4)
    inputs, names, expected = run_exported(tmp_path / "exported", given)
    assert inputs == order
    assert run_exported(tmp_path / "fp32/model", given)[:2] == (inputs, names)
    assert (record["inputs"], record["outputs"]) == (list(inputs), list(names))
    assert kinds["yolo_box"] == 3
    found = open_detector(tmp_path / "fp32/model", ONEDNN, threads=1).run(given)
    assert record["compared"] > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-2)
    assert (record["boxes"] is None) == (kind == "decoded")
    if kind != "decoded":
        counts = found[names.index(record["counts"])] if record["counts"] else [len(found[0])]
        assert sum(counts) == len(found[names.index(record["boxes"])])


def test_an_input_that_no_op_reads_is_kept(tmp_path):
    given = export(tmp_path / "exported", "unused_sizes")
    tiny_detectors.add_unused_input(tmp_path / "exported", "im_shape")
    record, _ = completed(tmp_path / "exported", tmp_path / "fp32", given)
    assert record["inputs"] == ["im_shape", "image"]
    _, _, expected = run_exported(tmp_path / "exported", given)
    _, _, found = run_exported(tmp_path / "fp32/model", given)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-2)


def test_the_decoding_inside_equals_the_decoding_of_the_job(tmp_path):
    given = export(tmp_path / "exported", "decoded")
    completed(tmp_path / "exported", tmp_path / "fp32", given)
    heads = Predictor(configuration(tmp_path / "fp32/model", ONEDNN, threads=1))
    boxes, scores = decode_all(
        heads.outputs(given["image"]), HEADS, [(SIDE, SIDE)] * 2, objectness_threshold=0.005
    )
    found = open_detector(tmp_path / "fp32/model", ONEDNN, threads=1).run(given)
    np.testing.assert_allclose(found[0], boxes, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found[1].transpose(0, 2, 1), scores, rtol=1e-3, atol=1e-4)


def test_other_boxes_than_those_of_the_heads_are_found(tmp_path):
    given = export(tmp_path / "exported")
    completed(tmp_path / "exported", tmp_path / "fp32", given)
    path = tmp_path / "fp32/model.pdmodel"
    program = read_program(path)
    (nms,) = (op for op in program.blocks[0].ops if op.type == "multiclass_nms3")
    next(each for each in nms.attrs if each.name == "nms_threshold").f = 0.1
    path.write_bytes(program.SerializeToString())
    exported = whole_detector.read_exported(tmp_path / "exported")
    with pytest.raises(QuantizationError, match="differs"):
        whole_detector.check_whole(tmp_path / "fp32/model", exported, given["image"], ONEDNN)


def test_a_detector_without_decoding_is_not_changed(tmp_path):
    given = export(tmp_path / "exported", "heads")
    assert completed(tmp_path / "exported", tmp_path / "fp32", given) is None
    assert not (tmp_path / "fp32" / NETWORK).exists()


def test_the_whole_detector_is_recognized_again(tmp_path):
    given = export(tmp_path / "exported")
    completed(tmp_path / "exported", tmp_path / "fp32", given)
    assert completed(tmp_path / "fp32/model", tmp_path / "again", given)
    first, again = (run_exported(tmp_path / f / "model", given)[2] for f in ("fp32", "again"))
    np.testing.assert_allclose(again[0], first[0], rtol=1e-3, atol=1e-2)


def test_a_detector_exported_for_one_image_is_trained_in_batches(tmp_path):
    given = export(tmp_path / "exported", batch=1)
    record, _ = completed(tmp_path / "exported", tmp_path / "fp32", given)
    assert record["batch"] == 1
    network = Predictor(configuration(tmp_path / "fp32/model", ONEDNN, threads=1))
    assert [len(output) for output in network.outputs(given["image"])] == [2, 2, 2]


def test_a_detector_with_another_decoding_keeps_it_as_a_model_with_other_outputs(tmp_path):
    given = export(tmp_path / "exported", "anchor_free")
    with pytest.raises(DataError, match="multiclass_nms3") as caught:
        open_exported(tmp_path / "exported")
    assert "/task to outputs" in caught.value.hint
    record, kinds = completed(tmp_path / "exported", tmp_path / "fp32", given, OUTPUTS)
    assert kinds == {"multiclass_nms3": 1}
    network = Predictor(configuration(tmp_path / "fp32/model", ONEDNN, threads=1))
    for place, output in enumerate(network.outputs(given["image"])):
        np.testing.assert_allclose(output, given[str(place)], rtol=1e-3, atol=1e-3)
    # The boxes are in pixels of the file, which is half as high as the input.
    given["scale_factor"] = np.array([[2, 1], [2, 1]], "float32")
    _, _, expected = run_exported(tmp_path / "exported", given)
    found = open_detector(tmp_path / "fp32/model", ONEDNN, threads=1).run(given)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-2)
    assert record["boxes"]


def test_ssd_keeps_its_prior_boxes(tmp_path):
    given = export(tmp_path / "exported", "ssd", order=("image",))
    _, kinds = completed(tmp_path / "exported", tmp_path / "fp32", given, OUTPUTS)
    assert kinds == {"box_coder": 1, "multiclass_nms3": 1}
    _, _, expected = run_exported(tmp_path / "exported", given)
    found = open_detector(tmp_path / "fp32/model", ONEDNN, threads=1).run(given)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-2)


def test_anchors_must_be_those_of_the_model(tmp_path):
    export(tmp_path / "exported")
    other = (*HEADS[:2], Head(8, ((9.0, 10.0),)))
    task = detection_task(other, size=(SIDE, SIDE), classes=CLASSES, settings=Selection())
    with pytest.raises(DataError, match=r"8: \[8, 10\].*8: \[9, 10\]") as caught:
        open_exported(tmp_path / "exported", task)
    assert "/detection/anchors" in caught.value.hint


def test_detectors_of_paddle_3_are_read(tmp_path):
    kinds = [kind for kind in KINDS if kind != "two_outputs"]
    subprocess.run(
        [sys.executable, tiny_detectors.__file__, str(tmp_path), *kinds],
        env={**os.environ, **environment(1), "FLAGS_enable_pir_api": "1"},
        check=True,
        capture_output=True,
    )
    for kind in kinds:
        prefix = tmp_path / kind / "model"
        assert prefix.with_suffix(".json").exists()
        given = dict(np.load(tmp_path / kind / "values.npz"))
        task = OUTPUTS if kind in ("anchor_free", "ssd") else TASK
        completed(prefix, tmp_path / kind / "fp32", given, task)
        network = Predictor(configuration(tmp_path / kind / "fp32/model", ONEDNN, threads=1))
        heads = [given[key] for key in sorted(given) if key.isdigit()]
        for one, other in zip(network.outputs(given["image"]), heads, strict=kind != "ssd"):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)
