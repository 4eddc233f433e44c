"""Folders that file systems, NAS devices and archive programs create beside the user's files.

They hold thumbnails, deleted files or metadata, often as image files.
"""

from collections import Counter
from collections.abc import Mapping

# Lower case, because Windows writes several spellings.
_NAMES = frozenset(
    {
        "__macosx",
        "__pycache__",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "lost+found",
        "recycled",
        "recycler",
        "system volume information",
    }
)
_SHOWN = 3


def is_system_folder(name: str) -> bool:
    """Return whether a name belongs to a system or hidden folder, such as ``@eaDir`` or ``.git``.

    ``@`` alone can be a class, for example a character.
    """
    return name.startswith(".") or (name[:1] == "@" != name) or name.lower() in _NAMES


def system_part(path: str) -> str:
    """Return the first system folder in the path of a file or folder; or empty."""
    return next((part for part in path.split("/") if is_system_folder(part)), "")


def describe(folders: Mapping[str, int]) -> str:
    """Return in words how many files are in system folders.

    Args:
        folders: the number of files by the name of the folder; not empty.
    """
    shown = [name for name, _ in Counter(folders).most_common(_SHOWN)]
    more = ", ..." if len(folders) > _SHOWN else ""
    return f"{sum(folders.values()):,} in system folders ({', '.join(shown)}{more})"
