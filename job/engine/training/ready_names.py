"""Renames variables of a saved model that have names which this program or Paddle would create.

Ops that the job appends write variables of their own. If the model already has a variable of this
name, the appended op would overwrite the model's value.
"""

import re
from collections.abc import Collection, Mapping

from paddle import static
from paddle.base import unique_name
from paddle.static import Program

IMAGE = "image"
LABEL = "label"
# Part of an op's name scope that excludes the op from quantization.
SKIP = "skip_quant"
# Prefix of the variables that the job appends to a saved model.
APPENDED = "job_"
SUFFIXES = (
    *("quantized", "dequantized", "scale", "fp32", "int8", "wide", "xshape", "pact_threshold"),
    *("negative", "below", "clipped", "shared"),
)
RESERVED = re.compile(
    rf"@|/|^({APPENDED}|optimizer_|{LABEL}$|{IMAGE}$)|\.({'|'.join(SUFFIXES)})(\.|$)"
)


def name_apart(program: Program) -> None:
    """Give the variables of ops that are appended from now on names with the prefix ``APPENDED``.

    A loaded program counts its names from 0 again, so they would repeat the names of the model.
    """
    program._name_generator = unique_name.UniqueNameGenerator(APPENDED)


def rename_reserved(program: Program, scope: static.Scope, image: str) -> Mapping[str, str]:
    """Rename the variables with reserved names, and the image input to ``IMAGE``.

    Args:
        program: a loaded inference program, changed in place.
        scope: contains the weights; receives them with their new names.
        image: name of the image input.

    Returns:
        Old -> new name of each variable; equal for most.
    """
    block = program.global_block()
    names = list(block.vars)
    kept = {name for name in names if not RESERVED.search(name) and name != image}
    renamed = {name: name for name in kept}
    for name in names:
        if name not in renamed and name != image:
            renamed[name] = free_name(re.sub(r"\W", "_", name), {*kept, *renamed.values()})
    renamed[image] = IMAGE
    # Two steps, because a new name can be the old name of another variable.
    changed = {old: new for old, new in renamed.items() if old != new}
    for step, goal in enumerate((lambda n: f"{n}@renamed", lambda n: changed[n])):
        for old in changed:
            source = old if step == 0 else f"{old}@renamed"
            rename(program, source, goal(old))
    for old, new in changed.items():
        variable = scope.find_var(old)
        if variable is not None and block.var(new).persistable:
            scope.var(new).get_tensor().set(variable.get_tensor(), static.cpu_places(1)[0])
    program._sync_with_cpp()
    return renamed


def rename(program: Program, old: str, new: str) -> None:
    """Rename a variable in all ops."""
    block = program.global_block()
    for op in block.ops:
        op._rename_input(old, new)
        op._rename_output(old, new)
    block._rename_var(old, new)


def free_name(name: str, taken: Collection[str]) -> str:
    """Return a name that is neither taken nor reserved."""
    name = f"model_{name}"
    number = 0
    while (found := f"{name}_{number}" if number else name) in taken or RESERVED.search(found):
        number += 1
    return found
