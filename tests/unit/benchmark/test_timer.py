"""The inside of a timing process, with a model that only pretends."""

import gc
import io
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from job.benchmark import timer_main

IMAGES = np.arange(12.0).reshape(3, 4)


@pytest.fixture(autouse=True)
def collecting():
    """A timing process switches it off, which these tests run inside of."""
    yield
    gc.enable()


class Model:
    """Takes a while for each call."""

    def __init__(self, seconds=0.0):
        self.seconds, self.calls, self.images = seconds, 0, None

    def set_images(self, images):
        self.images = images

    def run(self):
        self.calls += 1
        time.sleep(self.seconds)

    def scores(self, images):
        return images * 2


def command(**changes):
    return {
        "do": "time", "seconds": 0, "batches": 1, "limit": 9, "start_ns": 0, "keep_busy": False,
        **changes,
    }  # fmt: skip


def serve(model, *commands):
    """Answers to commands, the first one to none."""
    answers = io.StringIO()
    text = "".join(f"{json.dumps(one)}\n" for one in commands)
    timer_main.serve(model, IMAGES, io.StringIO(text), answers)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_says_when_it_is_ready_and_what_it_used():
    model = Model()
    (ready,) = serve(model)
    assert model.images is IMAGES
    assert model.calls == 0
    assert ready.keys() == {"peak_rss_bytes", "cpu_seconds", "preemptions"}
    assert ready["peak_rss_bytes"] > 1_000_000
    assert ready["cpu_seconds"] > 0


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"batches": 7}, 7, 7),
        ({"seconds": 0.05, "batches": 2}, 3, 10),
        ({"seconds": 5, "batches": 900, "limit": 0.05}, 3, 10),
        ({"batches": 900, "limit": 0}, 1, 1),
    ],
)
def test_times_as_long_and_as_often_as_it_is_told(changes, least, most):
    model = Model(seconds=0.005)
    _, answer = serve(model, command(**changes))
    assert least <= len(answer["milliseconds"]) <= most
    assert len(answer["milliseconds"]) == model.calls
    assert min(answer["milliseconds"]) >= 5


def test_waits_for_the_common_start():
    began = time.monotonic()
    serve(Model(), command(start_ns=time.monotonic_ns() + 50_000_000))
    assert time.monotonic() - began >= 0.05


def test_scores():
    _, answer = serve(Model(), {"do": "scores", "images": 2})
    assert answer["scores"] == (IMAGES[:2] * 2).tolist()


def test_stays_busy_until_it_is_told_otherwise():
    model = Model(seconds=0.001)
    (commands, tell), (listen, answers) = os.pipe(), os.pipe()
    with (
        os.fdopen(commands) as reading,
        os.fdopen(answers, "w") as writing,
        os.fdopen(tell, "w") as teller,
        os.fdopen(listen) as listener,
    ):
        thread = threading.Thread(target=timer_main.serve, args=(model, IMAGES, reading, writing))
        thread.start()
        assert "cpu_seconds" in json.loads(listener.readline())
        teller.write(json.dumps(command(batches=2, keep_busy=True)) + "\n")
        teller.flush()
        assert len(json.loads(listener.readline())["milliseconds"]) == 2
        deadline = time.monotonic() + 10
        while model.calls < 5:
            assert time.monotonic() < deadline, "it rests"
            time.sleep(0.001)
        teller.write(json.dumps({"do": "pause"}) + "\n")
        teller.flush()
        assert "milliseconds" not in json.loads(listener.readline())
        calls = model.calls
        time.sleep(0.02)
        assert model.calls == calls
        teller.close()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["openvino", "onnxruntime"])
def test_other_engines_are_opened_by_their_own_modules(monkeypatch, mode):
    asked = []
    module = SimpleNamespace(open_model=lambda *given: asked.append(given) or "a model")
    monkeypatch.setitem(sys.modules, f"job.engine.{mode}", SimpleNamespace(convert=module))
    assert timer_main.opener(Path("folder"), mode, [3, 8, 8], 2)() == "a model"
    assert asked == [(Path("folder"), 2)]
