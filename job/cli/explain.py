"""What the manifest's keys mean, from the schema alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.errors import UsageError
from job.manifest.pointer import pointer as write_pointer
from job.manifest.pointer import split_pointer
from job.manifest.schema import Key, expected, keys_and_items, resolve, types
from job.manifest.validate import misplaced

if TYPE_CHECKING:
    from rich.console import Console

_INDENT = "  "


@dataclass(frozen=True)
class Explanation:
    """One key of the manifest.

    Attributes:
        pointer: JSON pointer, such as ``/train/epochs``.
        meaning: what the key does, its unit, when to change it.
        types: JSON types that a value may have.
        allowed: the allowed values in words.
        required: whether the key must be given; if not, ``default`` holds.
        default: what stands for it when it is not given; None for a required key.
        examples: values that it may have.
        children: names of the keys inside it, or inside each of its items.
    """

    pointer: str
    meaning: str
    types: tuple[str, ...]
    allowed: str
    required: bool
    default: Any
    examples: tuple[Any, ...]
    children: tuple[str, ...]

    @property
    def depth(self) -> int:
        """How many keys this one lies inside."""
        return self.pointer.count("/") - 1

    @property
    def name(self) -> str:
        """The last part of the pointer."""
        return self.pointer.rpartition("/")[2]

    @property
    def summary(self) -> str:
        """The meaning's first sentence."""
        end = self.meaning.find(". ")
        return self.meaning if end < 0 else self.meaning[: end + 1]


def explain(pointer: str | None = None) -> tuple[Explanation, ...]:
    """Explain one key and what is inside it, or all keys.

    Args:
        pointer: ``quantize.moving_rate`` or ``/quantize/moving_rate``; None for every key.

    Returns:
        The key first, then the keys inside it, in the schema's order.

    Raises:
        UsageError: there is no such key.
    """
    given = (pointer or "").strip()
    wanted = write_pointer(split_pointer(given)) if given.strip("/.") else ""
    found = tuple(
        _explanation(key)
        for key in keys_and_items()
        if not wanted or key.pointer == wanted or key.pointer.startswith(f"{wanted}/")
    )
    if not found:
        near = misplaced(split_pointer(wanted))
        hint = f"Did you mean {near}? " if near else ""
        raise UsageError(
            f"the manifest has no key {wanted}", f"{hint}`job explain` lists every key."
        )
    return found


def _explanation(key: Key) -> Explanation:
    return Explanation(
        pointer=key.pointer,
        meaning=key.node["description"],
        types=types(key.node),
        allowed=expected(key.node),
        required=key.required,
        default=key.node.get("default"),
        examples=tuple(key.node["examples"]),
        children=tuple(resolve(key.node.get("items", key.node)).get("properties", ())),
    )


def render(explanations: Sequence[Explanation], console: "Console") -> None:
    """Print one key in full when it stands alone, else a tree with a line for each key."""
    if len(explanations) == 1:
        _render_key(explanations[0], console)
    else:
        _render_tree(explanations, console)


def _render_key(key: Explanation, console: "Console") -> None:
    # 50 ms, which callers that only want the records need not pay
    from rich.table import Table
    from rich.text import Text

    rows = {
        "type": " or ".join(key.types),
        "default": "none, it must be given" if key.required else json.dumps(key.default),
        "allowed": key.allowed,
        "example": " or ".join(json.dumps(example) for example in key.examples),
    }
    table = Table.grid(padding=(0, 2))
    for label, text in rows.items():
        table.add_row(Text(label, style="bold"), Text(text))
    console.print(Text(key.pointer, style="bold cyan"))
    console.print(Text(key.meaning))
    console.print(table)


def _render_tree(explanations: Sequence[Explanation], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    top = explanations[0].depth
    table = Table.grid(padding=(0, 2))
    # Names are never cut, so that they can be copied; meanings wrap.
    table.add_column(no_wrap=True)
    for key in explanations:
        name = Text(_INDENT * (key.depth - top) + key.name, style="bold cyan")
        if key.required:
            name.append(" *", style="red")
        table.add_row(name, Text(key.summary))
    console.print(table)
    console.print(Text("* must be given. `job explain KEY` tells more of one key."))
