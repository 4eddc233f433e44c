"""Formats numbers for Markdown, HTML and the terminal, and finds similar spellings."""

import difflib
from collections.abc import Iterable, Sequence

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
# Marks an unstable measurement.
UNSTABLE = "*"
KIB = 1024
_SHOWN_NAMES = 5


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, such as ``−0.12``; zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{MINUS if value < 0 else '+'}{text}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """Bounds that cannot be negative, such as ``3.10–3.28``."""
    return f"{low:.{digits}f}{DASH}{high:.{digits}f}"


def known_interval(bounds: tuple[float, float] | None) -> str:
    """Bounds such as ``3.10–3.28``, or a dash for None."""
    return DASH if bounds is None else interval(*bounds)


def signed_interval(low: float, high: float, digits: int = 2) -> str:
    """Bounds that may be negative, such as ``−0.29 to +0.05``."""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def times(ratio: float) -> str:
    """A ratio, such as ``3.19×``; one decimal from 10 on."""
    return f"{ratio:.{1 if ratio >= 10 else 2}f}×"


def known_times(ratio: float | None) -> str:
    """Return ``3.00×``, or a dash if the ratio is None."""
    return DASH if ratio is None else times(ratio)


def judged_times(ratio: float, stable: bool) -> str:
    """A ratio, with an asterisk if it is unstable, such as ``3.19×*``."""
    return f"{times(ratio)}{'' if stable else UNSTABLE}"


def significant(value: float) -> str:
    """About three digits without an exponent, such as ``0.412``, ``50.6``, ``1,672``."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def size(count: int) -> str:
    """Bytes as B, KiB, MiB or GiB, such as ``97.8 MiB``."""
    if count < KIB:
        return f"{count} B"
    value, unit = count / KIB, "KiB"
    for larger in ("MiB", "GiB"):
        if value < KIB:
            break
        value, unit = value / KIB, larger
    return f"{significant(value)} {unit}"


def duration(seconds: float) -> str:
    """Seconds as ``4.2 s``, ``3 min 20 s`` or ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rough_duration(seconds: float) -> str:
    """An estimate with one or two digits: ``20 s``, ``3 min``, ``1 h 10 min``."""
    if seconds < 60:
        return f"{max(1, round(seconds)) if seconds < 10 else 5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60 // 10 * 10:02d} min"


def probability(p: float) -> str:
    """A p-value: ``p < 0.001`` or ``p = 0.34``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def count(number: int) -> str:
    """A whole number with thousands separators, such as ``5,000``."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """A count with its noun, such as ``1 image`` or ``5,000 images``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shortened(names: Sequence[str]) -> str:
    """Return up to five names, or ``none``."""
    more = ", ..." if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more if names else "none"


def close_matches(
    word: str, choices: Iterable[str], limit: int = 1, cutoff: float = 0.6
) -> list[str]:
    """Return up to ``limit`` choices that resemble ``word``, best first; case is ignored.

    Args:
        word: the misspelled word.
        choices: the words that exist.
        limit: how many to return at most.
        cutoff: similarity from 0 to 1 that a choice must reach.
    """
    by_lower_case = {choice.lower(): choice for choice in choices}
    # Longer words make the comparison slow.
    found = difflib.get_close_matches(word[:100].lower(), by_lower_case, n=limit, cutoff=cutoff)
    return [by_lower_case[name] for name in found]


def closest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the choice that resembles ``word`` most, or an empty string."""
    return "".join(close_matches(word, choices, cutoff=cutoff))
