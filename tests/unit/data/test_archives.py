import bz2
import io
import json
import lzma
import os
import re
import resource
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from job.data.archive_reading import Limits, LocalArchive, is_archive
from job.data.archives import unpack
from job.data.s3.archive import members_of
from job.errors import DataError, OutputError

FILES = {"set/cat/0.png": b"cat", "set/dog/0.png": b"dog" * 999, "set/dog/empty.txt": b""}


def make_tar(path: Path, files: dict[str, bytes] = FILES) -> Path:
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as tar:
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def make_zip(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.mkdir("set")
        for name, content in files.items():
            opened.writestr(name, content)
    return path


def make(path: Path, files: dict[str, bytes] = FILES) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def make_odd_tar(path: Path, edit: Callable[[tarfile.TarInfo], None]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("set/cat/0.png")
        edit(member)
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


def assert_nothing_left(cache: Path) -> None:
    assert [path.name for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "A.TAR.GZ", "a.zip"])
def test_archives_are_unpacked_whole(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name)
    assert is_archive(archive.name)
    seen: list[tuple[int, int]] = []
    folder = unpack(archive, tmp_path / "cache", progress=lambda *news: seen.append(news))
    assert tree(folder) == FILES
    assert len(seen) == len(FILES)
    assert all(0 < done <= total == archive.stat().st_size for done, total in seen)


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip", "a.tar.gz"])
@pytest.mark.parametrize("content", [".tar", ".tar.gz", ".zip"])
def test_the_content_gives_the_format(tmp_path: Path, name: str, content: str) -> None:
    archive = make(tmp_path / f"b{content}").rename(tmp_path / name)
    assert tree(unpack(archive, tmp_path / "cache")) == FILES


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (bz2.compress(b"tar"), "bzip2"),
        (lzma.compress(b"tar"), "xz"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"<!DOCTYPE html><title>404</title>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "LFS"),
        (b"", "empty"),
    ],
)
def test_another_kind_of_file_is_named(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    archive = tmp_path / name
    archive.write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(name)}: .*\.tar\.gz.*{kind}"):
        unpack(archive, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")


@pytest.mark.parametrize(("content", "kind"), [(".tar.gz", "gzip"), (".zip", "zip")])
def test_a_compressed_archive_cannot_be_indexed(tmp_path: Path, content: str, kind: str) -> None:
    archive = make(tmp_path / f"b{content}").rename(tmp_path / "a.tar")
    with pytest.raises(DataError, match=rf"a\.tar: .*{kind}"):
        members_of(LocalArchive(archive), Limits())


def test_an_unpacked_archive_is_used_again_until_it_changes(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz")
    cache = tmp_path / "cache"
    first = unpack(archive, cache)
    (first / "mark").touch()
    os.utime(archive)
    assert unpack(archive, cache) == first
    assert (first / "mark").exists()
    make_tar(archive, {"set/cat/0.png": b"another"})
    second = unpack(archive, cache)
    assert tree(second) == {"set/cat/0.png": b"another"}


def test_a_killed_run_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar")
    cache = tmp_path / "cache"
    folder = unpack(archive, cache)
    (folder.parent / "archive.json").unlink()
    (folder / "set/cat/0.png").unlink()
    stale = cache / ".partial-a.tar-0123"
    stale.mkdir()
    assert unpack(archive, cache) == folder
    assert tree(folder) == FILES
    assert not stale.exists()
    assert json.loads((folder.parent / "archive.json").read_text())["bytes"] > 0


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
@pytest.mark.parametrize("evil", ["../evil.png", "set/../../evil.png", "/evil.png", "a\\..\\b"])
def test_paths_that_lead_out_are_refused(tmp_path: Path, name: str, evil: str) -> None:
    archive = make(tmp_path / name, {"set/cat/0.png": b"cat", evil: b"evil"})
    with pytest.raises(DataError, match=re.escape(repr(evil))):
        unpack(archive, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")
    assert not list(tmp_path.rglob("evil.png"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.FIFOTYPE, "is a special file"),
        (tarfile.CHRTYPE, "is a special file"),
    ],
)
def test_links_and_devices_in_tars_are_refused(tmp_path: Path, kind: bytes, message: str) -> None:
    def edit(member: tarfile.TarInfo) -> None:
        member.type = kind
        member.linkname = "/etc/passwd"

    archive = make_odd_tar(tmp_path / "a.tgz", edit)
    with pytest.raises(DataError, match=message):
        unpack(archive, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        member = zipfile.ZipInfo("set/link.png")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match=r"'set/link\.png'"):
        unpack(archive, tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_a_file_that_comes_twice_is_refused(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name, {"set/a": b"1", "set/a/b": b"2"})
    with pytest.raises(DataError, match="'set/a/b'"):
        unpack(archive, tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_bombs_are_refused_by_their_ratio(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name, {"set/zeros.png": bytes(20_000_000)})
    with pytest.raises(DataError, match="200 times"):
        unpack(archive, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_the_number_and_size_of_files_are_limited(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name)
    with pytest.raises(DataError, match="2 files"):
        unpack(archive, tmp_path / "cache", limits=Limits(entries=2))
    with pytest.raises(DataError, match="1,000 bytes"):
        unpack(archive, tmp_path / "cache", limits=Limits(total_bytes=1000))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8])
def test_truncated_archives_are_refused(tmp_path: Path, name: str, share: float) -> None:
    noise = {f"set/cat/{number}.png": os.urandom(3000) for number in range(20)}
    archive = make(tmp_path / name, noise)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content)) // 512 * 512])
    with pytest.raises(DataError, match=re.escape(str(archive))):
        unpack(archive, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
def test_damaged_archives_are_refused(tmp_path: Path, name: str) -> None:
    noise = {f"set/cat/{number}.png": os.urandom(3000) for number in range(20)}
    archive = make(tmp_path / name, noise)
    content = bytearray(archive.read_bytes())
    # The header of the fifth file of the tar; the content of a file in the others.
    place = 512 + 4 * (512 + 3072) + 10
    content[place : place + 40] = bytes(40)
    archive.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(archive))):
        unpack(archive, tmp_path / "cache")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tar: No such file"):
        unpack(tmp_path / "a.tar", tmp_path / "cache")


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", {"set/a.png": bytes(3_000_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.png"):
            unpack(archive, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_left(tmp_path / "cache")


def test_a_name_that_is_too_long_is_the_archives_fault(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"set/" + "x" * 300: b"cat"})
    with pytest.raises(DataError, match="'set/xxx"):
        unpack(archive, tmp_path / "cache")
    assert_nothing_left(tmp_path / "cache")


def test_a_zip_with_an_empty_name_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(zipfile.ZipInfo(""), b"cat")
    with pytest.raises(DataError, match=re.escape(str(archive))):
        unpack(archive, tmp_path / "cache")


def test_a_thousand_headers_before_one_file_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo.create_pax_global_header({"comment": "x"})
    archive = tmp_path / "a.tar"
    archive.write_bytes(header * 5000 + bytes(1024))
    with pytest.raises(DataError, match=re.escape(str(archive))):
        unpack(archive, tmp_path / "cache")


def test_a_long_header_is_not_read(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("set/a.png")
        member.pax_headers = {"comment": "1" * 100_000}
        tar.addfile(member)
    with pytest.raises(DataError, match=r"100,\d+ bytes at byte"):
        unpack(archive, tmp_path / "cache")


@pytest.mark.parametrize("version", ["GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major"])
def test_files_with_holes_are_refused_before_their_maps_are_read(
    tmp_path: Path, version: str
) -> None:
    value = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1", "GNU.sparse.major": "1"}[version]
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("set/a.png")
        member.pax_headers = {version: value, "GNU.sparse.minor": "0"}
        member.size = 1024
        tar.addfile(member, io.BytesIO(b"1\n" * 512))
    with pytest.raises(DataError, match="sparse"):
        unpack(archive, tmp_path / "cache")


def test_methods_that_take_much_memory_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("set/a.png", b"cat")
    with pytest.raises(DataError, match="method 14"):
        unpack(archive, tmp_path / "cache")


def test_a_device_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"a\.tar: not a regular file"):
        unpack(tmp_path / "a.tar", tmp_path / "cache")
