import pytest

from job.engine.inference.failure import reason_of

STACK = """In user code:

    File "net.py", line 3, in call
      return layer(x)

    InvalidArgumentError: The sizes must match.
      [Hint: Expected a == b, but received a:1 != b:2.] (at /paddle/kernel.cc:7)
      [operator < concat > error]"""


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (STACK, "InvalidArgumentError: The sizes must match. (op concat)"),
        (
            "(InvalidArgument) Wrong shape.\n  [operator < add > error]",
            "(InvalidArgument) Wrong shape. (op add)",
        ),
        ("first\nlast", "last"),
        ("[operator < concat > error]", "[operator < concat > error]"),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_names_the_error_and_the_op(message: str, reason: str) -> None:
    assert reason_of(RuntimeError(message)) == reason
