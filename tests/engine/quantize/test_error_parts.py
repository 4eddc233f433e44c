"""The parts of the error of quantization."""

import numpy as np
import pytest
import tiny

from job.engine.quantize import qat
from job.engine.quantize.calibration import calibrate
from job.engine.quantize.error_parts import error_parts, outputs_of, ratio
from job.engine.quantize.measurement import Images, Model
from job.engine.training import programs

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def calibrated():
    """An untrained calibrated session, its fake-quantized model, images and FP32 scores."""
    session = tiny.open_tiny()
    images, _ = tiny.examples(16, 0)
    with session.active():
        tiny.settle(session, images, 0.5)
        qat.prepare(session, tiny.SETTINGS, pact=False)
        quantized = qat.quantized_evaluation(session, tiny.SETTINGS)
        model = Model(session.classifier.evaluation, session.scope, session.executor)
        fp32 = scores(session, model, images)
        calibrate(
            session.classifier, quantized, session.scope, session.executor, Images(images),
            tiny.SETTINGS,
        )  # fmt: skip
    return session, Model(quantized, session.scope, session.executor), images, fp32


def scores(session, model, images):
    return outputs_of(model, session.classifier.outputs, Images(images), lambda done: None)


def parts_of(session, quantized, images, fp32):
    with session.active():
        return error_parts(
            quantized, session.classifier.outputs, Images(images), fp32, lambda done: None
        )


def test_the_parts_add_up_to_the_whole_error(calibrated):
    session, quantized, images, fp32 = calibrated
    parts = parts_of(*calibrated)
    with session.active():
        whole = ratio(scores(session, quantized, images), fp32)
    noise = sum(10 ** (-part / 10) for part in parts.values())
    assert -10 * np.log10(noise) == pytest.approx(whole, abs=2)


def test_a_scale_changes_only_the_part_of_activations(calibrated):
    session, quantized, *_ = calibrated
    before = parts_of(*calibrated)
    block = quantized.program.global_block()
    (scale, *_) = (
        op.input("Scale")[0]
        for op in block.ops
        if op.type == "quantize_linear" and op.input("X")[0] == programs.IMAGE
    )
    with session.active():
        value = programs.read_variables(session.scope, [scale])
        programs.write_variables(session.scope, {scale: value[scale] / 8})
        after = parts_of(*calibrated)
        programs.write_variables(session.scope, value)
    assert after["weights_db"] == before["weights_db"]
    assert after["activations_db"] < before["activations_db"] - 6
