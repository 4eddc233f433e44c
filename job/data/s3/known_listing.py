"""The last listing of a data set in S3, which the next dry run uses.

A listing is valid for ten minutes, for the same server, prefix, folders and lists. No inexpensive
request to S3 shows whether objects were added, so a run that executes stages never uses an earlier
listing.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from job.data.s3.list_objects import lists_of
from job.errors import DataError
from job.events import Say
from job.manifest import Manifest
from job.storage.cache import Cache
from job.storage.digests import hash_file
from job.storage.s3.access import Access
from job.uri import S3Uri

VALID_SECONDS = 600.0


class KnownListing:
    """The listing of one data set by an earlier command.

    Args:
        root: the URI of the data set.
        manifest: gives its lists or folders.
        access: identifies the server.
        cache: stores the listing.
        paths: the local paths of the downloaded lists.
        clock: returns the time in seconds since 1970.
    """

    def __init__(
        self,
        root: S3Uri,
        manifest: Manifest,
        access: Access,
        cache: Cache,
        paths: Mapping[S3Uri, Path],
        clock: Callable[[], float] = time.time,
    ) -> None:
        data = manifest.data
        lists = [hash_file(path) for path, _ in lists_of(manifest, paths)]
        what = [data.format, data.train_dir, data.selection_dir, data.val_dir, *lists]
        self._root = root
        self._name = f"listing {access.server} {root} {json.dumps(what)}"
        self._cache = cache
        self._clock = clock

    def description(self, say: Say) -> Path | None:
        """Return the description of the data set; None if there is no valid one.

        Args:
            say: callback for a message that names the age of the listing.
        """
        with suppress(ValueError, TypeError, KeyError):
            known = json.loads(self._cache.get(self._name) or b"{}")
            age, name = self._clock() - known["at"], f"description {known['sha256']}"
            # The clock of this machine may have been set back.
            if 0 <= age <= VALID_SECONDS and self._cache.kept_files(name):
                with suppress(DataError):
                    path = self._cache.files(name, 0, self._lost) / "description"
                    say(f"using the listing of {self._root} from {age:.0f} s ago")
                    return path
        return None

    def keep(self, description: Path) -> None:
        """Store which description the data set has now."""
        known = {"at": self._clock(), "sha256": hash_file(description)}
        self._cache.put(self._name, json.dumps(known).encode())

    def _lost(self, folder: Path) -> None:
        raise DataError(
            f"{folder}: another process removed the listing of {self._root}",
            "Run the same command again.",
        )
