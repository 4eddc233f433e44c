"""Searches for the ops that make an INT8 model differ too much from the fake-quantized model.

The search is a bisection: it finds the shortest prefix of the list of ops that must be in FP32 for
the model to reach the bound. The last op of the prefix is at fault. If the model is still wrong
with this op in FP32, the search continues with the other ops.

If the last op of a long prefix changes the agreement only a little, no op is at fault: many ops add
small errors. Then the search ends, because a few ops in FP32 cannot make the model right.
"""

import math
from collections.abc import Callable, Sequence

MAX_FOUND = 8
# Without one of two equal errors, the agreement is 3 dB better. An op at fault changes it by more.
CLEAR_DECIBELS = 6.0

Agree = Callable[[Sequence[str]], float | None]


def search(
    ops: Sequence[str], agree: Agree, bound: float, max_found: int = MAX_FOUND
) -> list[str] | None:
    """Return the ops to keep in FP32.

    Args:
        ops: all ops that can run in INT8, in the order of the program.
        agree: builds the model with some ops in FP32, and returns its agreement with what was
            trained, in decibels; None after a stop request. It is not called with all ops.
        bound: lowest agreement of a model that is right, in decibels.
        max_found: number of ops after which the search ends without success.

    Returns:
        The ops at fault. They are not enough if there are ``max_found`` of them, or if many ops add
        small errors; the latter are not returned. None after a stop request.
    """
    found: list[str] = []
    while len(found) < min(max_found, len(ops)):
        others = [op for op in ops if op not in found]
        # The row of all ops is right, because it contains no INT8 op.
        wrong, right = 0, len(others)
        worse, better = -math.inf, math.inf
        while right - wrong > 1:
            middle = (wrong + right) // 2
            answer = agree([*found, *others[:middle]])
            if answer is None:
                return None
            if answer >= bound:
                right, better = middle, answer
            else:
                wrong, worse = middle, answer
        few = len(found) + right <= max_found
        found.append(others[right - 1])
        if len(found) == len(ops):
            break
        answer = agree(found)
        if answer is None:
            return None
        if answer >= bound:
            break
        if not few and better - worse < CLEAR_DECIBELS:
            return found[:-1]
    return found
