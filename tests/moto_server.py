"""A real S3 server over HTTP: moto, in its own process.

``python tests/moto_server.py`` serves on a free loopback port, and prints the port.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from job.storage.s3.client import S3Settings, make_client
from job.storage.s3.objects import ObjectStore
from job.uri import S3Uri

# moto accepts any credentials. These show that no test uses the credentials of the machine.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class S3Server:
    """The running server.

    Attributes:
        url: its URL.
        process: its process.
        client: a boto3 client of the job, for direct access in tests.
    """

    url: str
    process: "subprocess.Popen[str]"
    client: Any

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables of a process that uses the server."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": self.url}

    @property
    def store(self) -> ObjectStore:
        """An object store on the server."""
        return ObjectStore(self.client)

    def copy(self, source: S3Uri, target: S3Uri) -> None:
        """Copy all objects below a prefix."""
        for each in self.store.list(source):
            self.client.copy_object(
                Bucket=target.bucket,
                Key=(target / each.uri.key.removeprefix(source.below)).key,
                CopySource={"Bucket": source.bucket, "Key": each.uri.key},
            )

    def pause(self) -> None:
        """Suspend the server; connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Resume the server."""
        self.process.send_signal(signal.SIGCONT)

    def bucket(self) -> S3Uri:
        """Return a new bucket."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return S3Uri(name, "")


@contextmanager
def served() -> Iterator[S3Server]:
    """Start the server, set the environment for it, and end it."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    before = dict(os.environ)
    try:
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        os.environ.update({**CREDENTIALS, "AWS_ENDPOINT_URL_S3": url})
        yield S3Server(url, process, make_client(S3Settings()))
    finally:
        os.environ.clear()
        os.environ.update(before)
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    """Serve until killed."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    from job.process.parent_death import die_with_parent

    die_with_parent(os.getppid())
    # One connection per request would take half of the time of the tests.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
