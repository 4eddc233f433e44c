"""Searches the ops that make an INT8 model compute something else than was trained.

The search is a bisection: it finds the shortest row of ops, from the first op on, that must be in
FP32 for the model to be right. The last op of the row is at fault. If the model is still wrong with
this op in FP32, the search goes on among the others.
"""

from collections.abc import Callable, Sequence

MAX_FOUND = 8

Matches = Callable[[Sequence[str]], bool | None]


def search(ops: Sequence[str], matches: Matches, max_found: int = MAX_FOUND) -> list[str] | None:
    """Return the ops to keep in FP32.

    Args:
        ops: all ops that can run in INT8, in the order of the program.
        matches: builds the model with some ops in FP32, and returns whether it computes what was
            trained; None after a stop request. It is not called with all ops.
        max_found: number of ops after which the search ends without success.

    Returns:
        The ops, which are not enough if there are ``max_found`` of them; None after a stop request.
    """
    found: list[str] = []
    while len(found) < min(max_found, len(ops)):
        others = [op for op in ops if op not in found]
        # The row of all ops is right, because it contains no INT8 op.
        wrong, right = 0, len(others)
        while right - wrong > 1:
            middle = (wrong + right) // 2
            answer = matches([*found, *others[:middle]])
            if answer is None:
                return None
            wrong, right = (wrong, middle) if answer else (middle, right)
        found.append(others[right - 1])
        if len(found) == len(ops):
            break
        answer = matches(found)
        if answer is None:
            return None
        if answer:
            break
    return found
