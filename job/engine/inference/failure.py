"""Reads the reason of a failure from an error message of Paddle, which also has stacks."""

import re

_OP = re.compile(r"\[operator < (\w+) > error\]")


def names_failed_op(error: Exception) -> bool:
    """Return whether an op failed for another reason than a lack of memory."""
    return _OP.search(str(error)) is not None and "ResourceExhausted" not in str(error)


def reason_of(error: Exception) -> str:
    """Return the line that names the kind of error, and the op that failed.

    Args:
        error: raised by Paddle, or by other code, whose message may be empty.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"\w*Error: |\(\w+\) [A-Z]", line)]
    reason = (named or lines or [type(error).__name__])[-1]
    op = _OP.search(str(error))
    return f"{reason} (op {op[1]})" if op and op[0] not in reason else reason
