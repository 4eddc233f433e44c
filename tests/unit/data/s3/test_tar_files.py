"""Tar files in S3 that are damaged."""

from pathlib import Path

import pytest
from unusual_s3 import Unusual

from job.data.archive_reading import Limits
from job.data.s3.archive import RemoteArchive, members_of, members_of_file
from job.errors import DataError
from job.uri import on_server


def test_a_message_names_the_tar_file_and_its_server(server: Unusual, tmp_path: Path) -> None:
    uri, store = server.hold("set.tar", bytes(range(256)) * 8), server.store()
    archive = RemoteArchive(store.head(uri), store)
    downloaded = tmp_path / "set.tar"
    store.download(uri, downloaded)
    for read in (
        lambda: members_of(archive, Limits()),
        lambda: members_of_file(downloaded, str(archive), Limits()),
    ):
        with pytest.raises(DataError) as raised:
            read()
        assert on_server(uri, server.url) in raised.value.message
        assert str(tmp_path) not in raised.value.message
