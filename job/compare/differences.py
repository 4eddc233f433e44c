"""The differences of two runs in manifest, inputs, versions and machine."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

# Two machines with equal values give comparable timings.
CONDITIONS = ("cpu_model", "flags", "cores", "quota_cores", "allocator")
# The name and the location of a run do not change its results.
_LABELS = ("/name", "/output", "/$schema")
_ABSENT = "–"


@dataclass(frozen=True)
class Difference:
    """A value that differs.

    Attributes:
        name: the JSON pointer of a manifest value, a package, or a property of the machine.
        a: the value in run A, as text; a dash if run A has no such value.
        b: the value in run B, as text.
    """

    name: str
    a: str
    b: str


def manifest_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the manifest values that differ, by JSON pointer; without name and output."""
    one, two = dict(_flat(a["manifest"], "")), dict(_flat(b["manifest"], ""))
    return _differing(
        {name: value for name, value in one.items() if name not in _LABELS},
        {name: value for name, value in two.items() if name not in _LABELS},
    )


def input_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the input files whose content differs, by file name."""
    one, two = (
        {PurePath(each["path"]).name: f"SHA-256 {each['sha256'][:12]}" for each in run["inputs"]}
        for run in (a, b)
    )
    return _differing(one, two)


def version_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the packages whose versions differ."""
    return _differing(a["versions"], b["versions"])


def machine_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the properties of the machine that differ; of CPU flags, only those of one machine."""
    one, two = dict(a["host"]), dict(b["host"])
    flags = [set(host.pop("flags")) for host in (one, two)]
    found = _differing(one, two)
    if flags[0] == flags[1]:
        return found
    only = [" ".join(sorted(flags[i] - flags[1 - i])) or _ABSENT for i in (0, 1)]
    return (*found, Difference("flags of one machine only", only[0], only[1]))


def machine_conflict(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """Return why timings of two machines are not comparable; empty if they are."""
    differing = [key for key in CONDITIONS if a["host"][key] != b["host"][key]]
    return f"the machines differ in {', '.join(differing)}" if differing else ""


def _flat(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """Yield the values of a JSON object by JSON pointer; a list is one value."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _flat(item, f"{pointer}/{name}")
    else:
        yield pointer, value


def _differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[Difference, ...]:
    names = dict.fromkeys([*one, *two])
    absent = object()
    return tuple(
        Difference(name, _text(one.get(name, _ABSENT)), _text(two.get(name, _ABSENT)))
        for name in names
        if one.get(name, absent) != two.get(name, absent)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
