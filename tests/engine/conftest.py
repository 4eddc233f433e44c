"""Tests of the engine run in a thread of their own, whose call stack is short."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from shared import made_once

if TYPE_CHECKING:
    import tiny


@pytest.fixture(scope="session")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tiny.Quantized:
    """A quantized ResNet18 with one image size for all tests; not to be changed."""

    def make(folder: Path) -> tiny.Quantized:
        import tiny

        session = tiny.open_tiny(name="resnet18", classes=10, input_shape=(3, 64, 64), width=0.25)
        return tiny.quantize(session, folder)

    return made_once(tmp_path_factory, "resnet18", make)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call a test in a thread.

    Paddle stores the call stack with each op that it appends, and reads the source files of all
    frames for a sum of two variables. With pytest's own 40 frames, this took a fifth of the CPU
    time of tests that build programs.
    """
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    failures: list[BaseException] = []
    thread = threading.Thread(target=_call, args=(pyfuncitem.obj, arguments, failures), daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return True


def _call(
    test: Callable[..., Any], arguments: dict[str, Any], failures: list[BaseException]
) -> None:
    try:
        test(**arguments)
    except BaseException as failure:
        failures.append(failure)
