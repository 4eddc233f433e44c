"""Distillation: the teacher in the training program, and what training keeps."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny

from job.engine.quantize import distillation, fake_quantize, qat
from job.engine.training import checkpoints, programs
from job.engine.training.loop import TEACHER
from job.engine.training.schedule import Schedule

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return tiny.train_baseline(tmp_path_factory.mktemp("training") / "fp32", max_iters=24)


def distil(fp32, out, news=None, **changes):
    """Train with the scores of FP32, as runs without ``base_lr`` do."""
    changes = {
        "optimizer": "adam",
        "weight_decay": 0.0,
        "schedule": Schedule("cosine", 0.02, (), 1.0, 0.0),
        "max_iters": 16,
        **changes,
    }
    settings = {**tiny.SETTINGS, "scale_trainable": False}
    return tiny.train_qat(fp32, out, news, loss="distill", settings=settings, **changes)


def evaluations(out):
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["evaluation"] for line in lines if "evaluation" in line]


def test_the_loss_is_zero_before_quantization():
    session = tiny.open_tiny()
    images, _ = tiny.examples(16, 0)
    with session.active():
        tiny.settle(session, images, 0.5)
        values = programs.read_variables(
            session.scope, programs.persistables(session.classifier.evaluation)
        )
        classifier = distillation.distil(session.classifier)
        fake_quantize.freeze_batch_norm(classifier.train)
        programs.write_variables(session.scope, distillation.teacher_values(values))
        feed = {programs.IMAGE: images}
        (loss,) = session.executor.run(classifier.train, feed, [classifier.loss])
        assert abs(loss) < 1e-5
        (bias,) = (name for name in values if name.startswith("linear") and name.endswith("b_0"))
        programs.write_variables(
            session.scope, {bias: values[bias] + np.array([1, 0, 0, 0], "float32")}
        )
        (loss,) = session.executor.run(classifier.train, feed, [classifier.loss])
    assert loss > 0.01


def test_an_exported_model_teaches(fp32):
    """Exported models lack outputs that inference does not need, such as XShape of flatten."""
    session = tiny.open_tiny(name=None, inference_model=fp32.out / "model")
    images, _ = tiny.examples(16, 0)
    with session.active():
        weights = programs.persistables(session.classifier.evaluation)
        values = programs.read_variables(session.scope, weights)
        classifier = distillation.distil(session.classifier)
        fake_quantize.freeze_batch_norm(classifier.train)
        programs.write_variables(session.scope, distillation.teacher_values(values))
        (loss,) = session.executor.run(
            classifier.train, {programs.IMAGE: images}, [classifier.loss]
        )
    assert abs(loss) < 1e-5


def test_the_teacher_is_neither_quantized_nor_trained(fp32, tmp_path):
    tiny.write_start(fp32, tmp_path)
    session = tiny.open_tiny()
    with session.active():
        session = replace(session, classifier=distillation.distil(session.classifier))
        trainer = qat.open_trainer(
            session,
            tiny.recipe(optimizer="adam"),
            tiny.SETTINGS,
            weights=fp32.out / "weights.npz",
            pact=False,
            start=tmp_path / qat.START,
            freeze_bn_stats=True,
            data="",
            meeting=None,
        )
        ops = trainer.program.global_block().ops
        quantized = [op.input("X")[0] for op in ops if op.type == "quantize_linear"]
        assert len(quantized) > 10
        assert not any(name.startswith(TEACHER) for name in quantized)
        programs.write_variables(session.scope, {trainer.learning_rate: np.array([1], "float32")})
        images, _ = tiny.examples(16, 0)
        session.executor.run(trainer.program, {programs.IMAGE: images}, [trainer.loss])
        for name, value in checkpoints.read_arrays(fp32.out / "weights.npz").items():
            (found,) = programs.read_variables(session.scope, [TEACHER + name]).values()
            np.testing.assert_array_equal(found, value)


@pytest.mark.full
def test_checkpoints_do_not_contain_the_teacher(fp32, tmp_path):
    distil(fp32, tmp_path / "qat", max_iters=2, checkpoint_seconds=0.0)
    values = tiny.trained_values(tmp_path / "qat")
    assert not any(name.startswith(TEACHER) for name in values)
    best, _ = checkpoints.read_best(tmp_path / "qat/best.npz")
    assert not any(name.startswith(TEACHER) for name in best)


@pytest.mark.full
def test_an_interrupted_distillation_continues(fp32, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    distil(fp32, whole, max_iters=6, checkpoint_seconds=0.0)
    assert not distil(fp32, parts, tiny.News(stop_after=3), max_iters=6)
    distil(fp32, parts, max_iters=6, checkpoint_seconds=0.0)
    one, other = (tiny.trained_values(out) for out in (whole, parts))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value, err_msg=name)


@pytest.mark.parametrize("step_size", [0.02, 5.0])
def test_training_never_makes_it_worse(fp32, tmp_path, step_size):
    out = tmp_path / "qat"
    record = distil(fp32, out, schedule=Schedule("cosine", step_size, (), 1.0, 0.0))
    found = evaluations(out)
    divergence = {each["step"]: each["divergence"] for each in found}
    assert set(divergence) >= {0, 16}
    assert record["selected_by"] == "divergence"
    assert divergence[record["best_step"]] == min(divergence.values())
    if step_size == 5.0:
        assert record["best_step"] == 0
        best, _ = checkpoints.read_best(out / "best.npz")
        for name, value in checkpoints.read_arrays(out / qat.START).items():
            np.testing.assert_array_equal(best[name], value, err_msg=name)


def test_labels_select_by_their_cross_entropy(fp32, tmp_path):
    record = tiny.train_qat(fp32, tmp_path / "qat", max_iters=8)
    entropy = {each["step"]: each["cross_entropy"] for each in evaluations(tmp_path / "qat")}
    assert record["selected_by"] == "cross_entropy"
    assert entropy[record["best_step"]] == min(entropy.values())


def test_rates_of_weights_that_a_network_replaces_stay():
    session = tiny.open_tiny(name=None, callable_="own_networks:normalized_weights", classes=10)
    train = session.classifier.train
    values = programs.read_variables(
        session.scope, programs.persistables(session.classifier.evaluation)
    )
    distillation.use_relative_rates(train, values)
    rates = {each.name: each.optimize_attr["learning_rate"] for each in train.all_parameters()}
    assert {name for name, rate in rates.items() if rate == 1} == rates.keys() - values.keys()
    assert rates.keys() - values.keys()
