"""Explains errors of a network's code that Paddle describes for other users.

Paddle's own texts advise settings of ``to_static``, which the job does not use.
"""

import re
from typing import NamedTuple


class Explanation(NamedTuple):
    """What the code does, and how to write it differently."""

    what: str
    hint: str


VALUE = Explanation(
    "the code reads the value of a tensor, which differs from image to image",
    "Compute with the tensor itself. To choose between two results, compute both and select one "
    "with paddle.where.",
)
LENGTH = Explanation(
    "the code calls len() of a tensor, and the number of images is not known",
    "Use x.shape[0], which reshape, expand and tile accept.",
)
ASSIGNMENT = Explanation(
    "the code assigns to a part of a tensor, which a static program cannot contain",
    "Build a new tensor: with paddle.concat, with paddle.where, or with a product with a mask.",
)
# Part of the error's text -> explanation.
EXPLANATIONS = {
    r"(int|float|complex)\(Variable\) is not supported": VALUE,
    r"'numpy' only can be called": VALUE,
    r"'Variable' object has no attribute 'tolist'": VALUE,
    r"'Variable' object cannot be interpreted as an integer": VALUE,
    r"indices must be integers or slices, not Variable": VALUE,
    r"object of type 'Variable' has no len\(\)": LENGTH,
    r"__setitem__ .*should not be used": ASSIGNMENT,
}


def explanation_of(error: Exception) -> Explanation | None:
    """Return the explanation of an error; None for other errors."""
    text = str(error)
    found = (each for part, each in EXPLANATIONS.items() if re.search(part, text))
    return next(found, None)
