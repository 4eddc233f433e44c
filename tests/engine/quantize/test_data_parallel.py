"""Data-parallel training: all processes get the same weights as a single process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny

from job.engine.quantize import data_parallel, fake_quantize, qat
from job.engine.training import checkpoints, programs
from job.engine.training import loop as training
from job.process.environment import environment

pytestmark = pytest.mark.engine

# Another order of sums changes values by 1.5e-6. A value near the end of its range is then clipped
# in one run and not in the other, which changed weights by 4e-4 in six steps.
TOLERANCE = 2e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("together")
    tiny.train_baseline(found / "fp32", max_iters=24)
    return found


def train(folder, name, size, **settings):
    """Train in ``size`` processes, into ``folder/name``; return their exit codes and logs.

    If one process fails, the others are killed, as their supervisors would do.
    """
    (folder / name).mkdir(exist_ok=True)
    start = folder / "alone" / qat.START
    if start.exists() and not settings:
        # Calibration with another number of threads rounds sums differently.
        shutil.copy(start, folder / name)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    script, options = Path(__file__).parents[1].joinpath("rank.py"), json.dumps(settings)
    logs = [folder / name / f"{rank}.log" for rank in range(size)]
    processes = []
    for rank, log in enumerate(logs):
        with log.open("wb") as file:
            arguments = (rank, size, port, folder, name, options)
            command = [sys.executable, script, *map(str, arguments)]
            path = os.pathsep.join(filter(None, sys.path))
            processes.append(
                subprocess.Popen(
                    command, env=environment(1) | {"PYTHONPATH": path}, stdout=file, stderr=file
                )
            )
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return codes, [log.read_text() for log in logs]


def trained(folder, name, size, **settings):
    codes, logs = train(folder, name, size, **settings)
    assert set(codes) == {0}, "\n".join(logs)
    return folder / name


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def last_state(folder):
    state = checkpoints.read_arrays(max((folder / "checkpoints").glob("step-*.npz")))
    state.pop("progress")
    return state


@pytest.fixture(scope="module")
def alone(folder):
    fp32 = tiny.Trained(folder / "fp32", {}, None)
    tiny.train_qat(fp32, folder / "alone", freeze=True, max_iters=6, checkpoint_seconds=0.0)
    return folder / "alone"


@pytest.mark.full
def test_the_shared_program_of_one_process_is_the_same_to_the_last_bit(folder, alone):
    one = trained(folder, "one", 1)
    assert losses(one) == losses(alone)
    found, expected = last_state(one), last_state(alone)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def test_two_processes_learn_what_one_does(folder, alone):
    two = trained(folder, "two", 2)
    assert len(losses(two)) == 6
    np.testing.assert_allclose(losses(two), losses(alone), rtol=0, atol=TOLERANCE)
    found, expected = last_state(two), last_state(alone)
    assert found.keys() == expected.keys()
    scales = [name for name in expected if "scale" in name]
    assert len(scales) > 10
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
    others = checkpoints.read_arrays(two / "rank1.npz")
    for name, value in found.items():
        assert others[name].tobytes() == value.tobytes(), name


@pytest.mark.full
def test_two_stop_and_one_goes_on(folder, alone):
    parts = trained(folder, "stopped", 2, stop_after=3)
    assert len(losses(parts)) == 3
    fp32 = tiny.Trained(folder / "fp32", {}, None)
    # Without a group, as `job run` resumes it when it was started as one process.
    tiny.train_qat(fp32, parts, freeze=True, max_iters=6, checkpoint_seconds=0.0)
    np.testing.assert_allclose(losses(parts), losses(alone), rtol=0, atol=TOLERANCE)


@pytest.mark.full
def test_other_images_are_noticed(folder):
    codes, logs = train(folder, "other-labels", 2)
    assert codes == [-signal.SIGKILL, 1]
    assert "DataError: rank 1 " in logs[1]


def test_every_weight_and_every_average_is_shared(folder):
    session = tiny.open_tiny()
    classifier = session.classifier
    with session.active():
        fake_quantize.freeze_batch_norm(classifier.train)
        training.add_optimizer(
            classifier.train,
            classifier.startup,
            classifier.loss,
            name="adam",
            momentum=0.9,
            weight_decay=1e-4,
        )
        session.executor.run(classifier.startup)
        programs.write_variables(
            session.scope, checkpoints.read_arrays(folder / "fp32/weights.npz")
        )
        program = fake_quantize.insert(
            classifier.train, session.scope, tiny.SETTINGS, for_test=False
        )
        averages = [op for op in program.global_block().ops if fake_quantize.measures_images(op)]
        totals = {op.input("InAccum")[0] for op in averages}
        assert len(totals) > 5
        assert fake_quantize.measure_apart(program, 0.9) == len(averages)
        loss = data_parallel.share_training(program, classifier.loss, 2)
    reduced = [
        (op.input("x")[0], op.attr("reduce_type"))
        for op in program.global_block().ops
        if op.type == "all_reduce"
    ]
    trained = {each.name for each in program.all_parameters() if each.trainable}
    weights = trained - programs.batch_norm_statistics(program)
    assert {name for name, how in reduced if how == data_parallel.MAX} == totals
    gradients = {f"{name}@GRAD" for name in weights}
    assert {name for name, how in reduced if how == data_parallel.SUM} == {*gradients, loss}
    assert not any(fake_quantize.measures_images(op) for op in program.global_block().ops)
