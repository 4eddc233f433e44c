"""The work of a timing process, with a fake model."""

import gc
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from job.benchmark import timer_main
from job.process.json_channel import JsonChannel

IMAGES = np.arange(12.0).reshape(3, 4)


@pytest.fixture(autouse=True)
def collecting():
    """Enable garbage collection again; `serve`, which runs in this process, disables it."""
    yield
    gc.enable()


class Model:
    """A model whose calls take a fixed time."""

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


@pytest.fixture
def ends():
    """The two ends of a channel: the benchmark's and the timing process's."""
    ours, theirs = map(JsonChannel, socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def serve(model, *commands):
    """Return all answers; the first one precedes the commands."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = JsonChannel(ours)
        for one in commands:
            channel.send(**one)
        ours.shutdown(socket.SHUT_WR)
        timer_main.serve(model, IMAGES, JsonChannel(theirs))
        return [channel.receive() for _ in range(len(commands) + 1)]


def test_reports_that_it_is_ready_and_its_usage():
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
def test_times_as_long_and_as_often_as_the_command_requires(changes, least, most):
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


def test_stays_busy_until_the_next_command(ends):
    model = Model(seconds=0.001)
    ours, theirs = ends
    thread = threading.Thread(target=timer_main.serve, args=(model, IMAGES, theirs))
    thread.start()
    assert "cpu_seconds" in ours.receive()
    ours.send(**command(batches=2, keep_busy=True))
    assert len(ours.receive()["milliseconds"]) == 2
    deadline = time.monotonic() + 60
    while model.calls < 5:
        assert time.monotonic() < deadline, "it rests"
        time.sleep(0.001)
    ours.send(do="pause")
    assert "milliseconds" not in ours.receive()
    calls = model.calls
    time.sleep(0.02)
    assert model.calls == calls
    ours.close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("mode", ["openvino", "onnxruntime"])
def test_other_engines_are_opened_by_their_own_modules(monkeypatch, mode):
    opened = []
    module = SimpleNamespace(open_model=lambda *values: opened.append(values) or "a model")
    monkeypatch.setitem(sys.modules, f"job.engine.{mode}", SimpleNamespace(convert=module))
    assert timer_main.opener(Path("folder"), mode, [3, 8, 8], 2)() == "a model"
    assert opened == [(Path("folder"), 2)]
