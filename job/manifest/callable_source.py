"""Checks a custom network's function in its source code, without running the code."""

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from job.errors import UsageError
from job.manifest.custom_code import search_folders
from job.manifest.spec import Manifest
from job.text_format import closest

# The one argument that a network's function is called with, if it has such a parameter.
ARGUMENT = "num_classes"
# A module that uses these can define any name while it is imported.
_DYNAMIC = frozenset({"globals", "exec", "setattr", "vars", "__getattr__", "__dict__"})
_COMPILED = (".so", ".pyc", ".pyd")


def check_callable(manifest: Manifest) -> None:
    """Check that the function of ``model.callable`` exists and can be called.

    Functions that the source code does not show, such as imported ones, are accepted.

    Raises:
        UsageError: the module or the function does not exist, the source code has a syntax error,
            or the function has other required parameters than ``num_classes``.
    """
    target = manifest.model.callable
    if not target:
        return
    module, _, function = target.partition(":")
    file = _module_file(manifest, target, module.split("."))
    if file is None:
        return
    tree = _parsed(file, target)
    if tree is None:
        return
    names: dict[str, ast.stmt | None] = {}
    for statement in _statements(tree.body):
        names |= dict(_defined(statement))
    if function in names:
        _check_parameters(names[function], target, file)
    elif "*" not in names and not _is_dynamic(tree):
        near = closest(function, [*names])
        raise UsageError(
            f"/model/callable: cannot import {target}: {file} defines no {function!r}",
            f"Did you mean {near}?" if near else "Correct the name of the function.",
        )


def _module_file(manifest: Manifest, target: str, parts: Sequence[str]) -> Path | None:
    """Return the source file of a module; None if it is compiled or built in.

    Raises:
        UsageError: the module does not exist.
    """
    folders = search_folders(manifest)
    for folder in folders:
        if len(parts) == 1 and not (folder / parts[0] / "__init__.py").is_file():
            found = (folder / f"{parts[0]}.py").is_file()
        else:
            found = (folder / parts[0]).is_dir()
        if found:
            return _inside(folder, target, parts)
    if importlib.util.find_spec(parts[0]) is not None:
        return None
    shown = ", ".join(dict.fromkeys(map(str, folders[-2:])))
    raise UsageError(
        f"/model/callable: cannot import {target}: found no module {parts[0]!r} in the installed "
        f"packages, PYTHONPATH, {shown}",
        "Correct the name, or add the folder of the module to PYTHONPATH.",
    )


def _inside(folder: Path, target: str, parts: Sequence[str]) -> Path | None:
    path = folder.joinpath(*parts)
    for file in (path / "__init__.py", path.with_name(f"{parts[-1]}.py")):
        if file.is_file():
            return file
    parent = path.parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    if any(name.startswith(f"{parts[-1]}.") and name.endswith(_COMPILED) for name in names):
        return None
    modules = [Path(name).stem for name in names if name.endswith(".py")]
    near = closest(parts[-1], modules)
    raise UsageError(
        f"/model/callable: cannot import {target}: {parent} has no module {parts[-1]!r}",
        f"Did you mean {near}?" if near else "Correct the name of the module.",
    )


def _parsed(file: Path, target: str) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UsageError(
            f"/model/callable: cannot import {target}: {file}, line {error.lineno}: {error.msg}",
            "Correct the source code.",
        ) from error
    except (OSError, ValueError, RecursionError, MemoryError):
        # The import itself reports the fault.
        return None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, ()))
        for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _statements(part.body)


def _defined(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt | None]]:
    """Yield the names that a statement defines; ``*`` for all names of another module."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name, statement
        return
    if isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0], None
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, None


def _is_dynamic(tree: ast.Module) -> bool:
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return bool(used & _DYNAMIC)


def _check_parameters(definition: ast.stmt | None, target: str, file: Path) -> None:
    if isinstance(definition, ast.ClassDef):
        methods = (each for each in definition.body if isinstance(each, ast.FunctionDef))
        function = next((each for each in methods if each.name == "__init__"), None)
        skipped = 1
    else:
        function = definition if isinstance(definition, ast.FunctionDef) else None
        skipped = 0
    # A decorator can change the parameters.
    decorated = getattr(definition, "decorator_list", None) or getattr(
        function, "decorator_list", None
    )
    if function is None or decorated:
        return
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    required = positional[skipped : len(positional) - len(given.defaults)]
    required += [
        name
        for name, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        if not default
    ]
    missing = [each.arg for each in required if each.arg != ARGUMENT]
    if missing:
        raise UsageError(
            f"/model/callable: {target} requires the parameters {', '.join(missing)} "
            f"({file}, line {function.lineno}), but it is called with {ARGUMENT} only, or "
            "without arguments",
            "Give these parameters default values, or set /model/callable to a function without "
            "them.",
        )
