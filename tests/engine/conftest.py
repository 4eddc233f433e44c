"""Tests of the engine run in a thread of their own, whose call stack is short."""

import threading
from collections.abc import Callable
from typing import Any

import pytest


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
