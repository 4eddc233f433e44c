import subprocess
import sys

import numpy as np

from job.process.memory import peak_rss_bytes

PEAK = "from job.process.memory import peak_rss_bytes; print(peak_rss_bytes())"


def test_memory_of_the_parent_does_not_count() -> None:
    held = np.ones(300_000_000, np.uint8)
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert 5_000_000 < int(done.stdout) < held.nbytes < peak_rss_bytes()
