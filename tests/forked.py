"""Python commands without the start of an interpreter: a fork of the test process runs them.

A new interpreter takes one to three seconds of CPU time to import what a command needs. A fork has
it already. Everything else is as in a process of its own: arguments, environment, streams, current
directory, session, signals, exit code and memory. What tests must not rely on is that a module is
imported afresh.
"""

import atexit
import faulthandler
import gc
import importlib
import io
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

# What commands and stages import when they need it: imported once here, not once in each fork.
PRELOAD = ("api", "cli", "compare", "manifest", "pipeline", "report", "stages", "storage", "ui")
LIBRARIES = ("boto3", "jsonschema", "matplotlib.figure", "rich.progress", "scipy.stats", "yaml")
_STOPS = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGQUIT)


class Popen(subprocess.Popen[Any]):
    """``subprocess.Popen`` of ``[sys.executable, "-c" or "-m", ...]``, by a fork.

    Other commands are executed as usual.
    """

    def _execute_child(  # type: ignore[no-untyped-def]
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *rest,
    ) -> None:  # fmt: skip
        """Fork instead of executing a file; the signature is that of Python 3.11."""
        pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        entry = _entry(args)
        if entry is None:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                creationflags, shell, *pipes, *rest,
            )  # fmt: skip
            return
        _preload()
        start_new_session = rest[-2]
        self.pid = os.fork()
        if not self.pid:
            _become(entry, (p2cread, c2pwrite, errwrite), pass_fds, cwd, env, start_new_session)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def run(command: Sequence[Any], **options: Any) -> "subprocess.CompletedProcess[Any]":
    """``subprocess.run``, by a fork."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Popen)
        return subprocess.run(command, **options)


@contextmanager
def forking(*modules: types.ModuleType, popen: type[Popen] = Popen) -> Iterator[None]:
    """Let modules that start processes by ``subprocess`` fork them, with a class of processes."""
    instead = types.SimpleNamespace(**{**vars(subprocess), "Popen": popen})
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "subprocess", instead)
        yield


@cache
def _preload() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in PRELOAD:
        package = importlib.import_module(f"job.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"job.{name}."):
            importlib.import_module(module.name)


def _entry(command: Any) -> tuple[list[str], types.CodeType, Any] | None:
    """Return the arguments, code and module spec of a Python command; None for others."""
    words = [os.fspath(word) for word in command] if not isinstance(command, str) else []
    if not words or words[0] != sys.executable:
        return None
    words = [word for word in words[1:] if word not in ("-P",)]
    kind, what, *arguments = [*words, "", ""][: max(len(words), 2)]
    if kind == "-c":
        return ["-c", *arguments], compile(what, "<string>", "exec"), None
    if kind == "-m":
        spec = find_spec(what)
        if spec is not None and spec.submodule_search_locations:
            spec = find_spec(f"{what}.__main__")
        assert spec is not None
        assert isinstance(spec.loader, SourceFileLoader)
        code = spec.loader.get_code(spec.name)
        assert code is not None
        return [str(spec.origin), *arguments], code, spec
    return None


def in_a_process(action: Callable[[], int]) -> int:
    """Do something in a forked process; returns its exit code, or minus its signal."""
    _preload()
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            os._exit(action())
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(
    entry: tuple[list[str], types.CodeType, Any],
    streams: tuple[int, int, int],
    pass_fds: Sequence[int],
    cwd: Any,
    env: Any,
    start_new_session: bool,
) -> None:
    """Be the command, in the fork; does not return."""
    code = 1
    try:
        # Objects of the parent are never freed here, so that none closes a descriptor of the child.
        gc.freeze()
        if start_new_session:
            os.setsid()
        atexit._clear()
        _use(streams, pass_fds)
        _forget_pytest()
        if cwd is not None:
            os.chdir(cwd)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        if "PYTHONFAULTHANDLER" in os.environ:
            faulthandler.enable()
        code = _execute(*entry)
    finally:
        os._exit(code)


def _use(streams: tuple[int, int, int], pass_fds: Sequence[int]) -> None:
    """Put streams at 0, 1 and 2, and close all else but ``pass_fds``."""
    high = [os.dup(stream if stream != -1 else number) for number, stream in enumerate(streams)]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number)
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) > 2 and int(path.name) not in pass_fds:
            with suppress(OSError):  # the one that listed the folder is closed already
                os.close(int(path.name))
    for descriptor in pass_fds:
        os.set_inheritable(descriptor, True)
    stdin, stdout, stderr = (
        io.FileIO(number, mode, closefd=False) for number, mode in enumerate(("r", "w", "w"))
    )
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(stdin), encoding="utf-8")
    sys.stdout = sys.__stdout__ = _text(stdout, "strict")
    sys.stderr = sys.__stderr__ = _text(stderr, "backslashreplace")


def _text(raw: io.FileIO, errors: str) -> io.TextIOWrapper:
    """A text stream that writes at once, as PYTHONUNBUFFERED has it."""
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True)  # type: ignore[arg-type]


def _forget_pytest() -> None:
    """Undo what pytest sets in its process."""
    faulthandler.disable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in _STOPS:
        signal.signal(signum, signal.SIG_DFL)
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    sys.excepthook = sys.__excepthook__
    tempfile.tempdir = None


def _execute(arguments: list[str], code: types.CodeType, spec: Any) -> int:
    """Execute the command's code as an interpreter would, to its end; returns its exit code."""
    main = types.ModuleType("__main__")
    main.__spec__ = spec
    sys.modules["__main__"], sys.argv = main, arguments
    if spec is None:
        sys.path.insert(0, "")
    else:
        main.__file__ = spec.origin
    status = 0
    try:
        exec(code, main.__dict__)  # noqa: S102 - a test's own command
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return status
