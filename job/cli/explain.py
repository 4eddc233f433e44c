"""Explains manifest keys. All texts but the costs are read from the manifest's schema."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.cli.key_costs import cost_of
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
        meaning: the description of the key: effect, unit, and when to change it.
        types: JSON types of a valid value.
        allowed: the allowed values in words.
        required: whether the key is required.
        default: the value if the key is omitted; None for a required key.
        examples: valid values.
        cost: how the key changes time, memory or disk, in one line.
        children: names of the keys inside this key, or inside each of its items.
    """

    pointer: str
    meaning: str
    types: tuple[str, ...]
    allowed: str
    required: bool
    default: Any
    examples: tuple[Any, ...]
    cost: str
    children: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of keys that contain this key."""
        return self.pointer.count("/") - 1

    @property
    def name(self) -> str:
        """Last part of the pointer."""
        return self.pointer.rpartition("/")[2]

    @property
    def summary(self) -> str:
        """First sentence of the meaning."""
        end = self.meaning.find(". ")
        return self.meaning if end < 0 else self.meaning[: end + 1]


def explain(pointer: str | None = None) -> tuple[Explanation, ...]:
    """Explain one key and the keys inside it, or all keys.

    Args:
        pointer: ``quantize.moving_rate`` or ``/quantize/moving_rate``; None for all keys.

    Returns:
        The key first, then the keys inside it, in the schema's order.

    Raises:
        UsageError: the key does not exist.
    """
    given = (pointer or "").strip()
    wanted = write_pointer(split_pointer(given)) if given.strip("/.") else ""
    explanations = tuple(
        _explanation(key)
        for key in keys_and_items()
        if not wanted or key.pointer == wanted or key.pointer.startswith(f"{wanted}/")
    )
    if not explanations:
        near = misplaced(split_pointer(wanted))
        hint = f"Did you mean {near}? " if near else ""
        raise UsageError(
            f"the manifest has no key {wanted}", f"{hint}Run `job explain` to list all keys."
        )
    return explanations


def _explanation(key: Key) -> Explanation:
    return Explanation(
        pointer=key.pointer,
        meaning=key.node["description"],
        types=types(key.node),
        allowed=expected(key.node),
        required=key.required,
        default=key.node.get("default"),
        examples=tuple(key.node["examples"]),
        cost=cost_of(key.pointer),
        children=tuple(resolve(key.node.get("items", key.node)).get("properties", ())),
    )


def render(explanations: Sequence[Explanation], console: "Console") -> None:
    """Print a single key with all details, or several keys as a tree with one line each.

    If all other keys are inside the first key, the meaning of the first key is printed as well.
    """
    first, *others = explanations
    if first.children or not others:
        _render_key(first, console)
    if others:
        _render_tree(explanations, console)


def _render_key(key: Explanation, console: "Console") -> None:
    # rich takes 50 ms to import, which callers of explain() do not need.
    from rich.table import Table
    from rich.text import Text

    details = {
        "type": " or ".join(key.types),
        "default": "none (required)" if key.required else json.dumps(key.default),
        "allowed": key.allowed,
        "example": " or ".join(json.dumps(example) for example in key.examples),
        "cost": key.cost,
    }
    # The keys inside a section have the types and the defaults.
    rows = {"cost": key.cost} if key.children else details
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
    # Names are not truncated, so that users can copy them; meanings wrap.
    table.add_column(no_wrap=True)
    for key in explanations:
        name = Text(_INDENT * (key.depth - top) + key.name, style="bold cyan")
        if key.required:
            name.append(" *", style="red")
        table.add_row(name, Text(key.summary))
    console.print(table)
    mark = "* required. " if any(key.required for key in explanations) else ""
    console.print(Text(f"{mark}Run `job explain KEY` for all details of a key."))
