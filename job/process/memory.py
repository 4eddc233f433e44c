"""Peak memory of this process."""

import re
from pathlib import Path


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    ``getrusage`` would also count the memory of the parent, from the fork until this process
    executed its program. Source: VmHWM in proc(5).
    """
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise AssertionError("/proc/self/status has no VmHWM")
    return 1024 * int(found[1])
