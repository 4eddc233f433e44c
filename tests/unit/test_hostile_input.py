"""Hostile inputs: accepted rightly, or refused clearly with the right exit code.

``make test-all`` tries ten thousand, ``make test`` a tenth of them.
"""

import io
import json
import math
import os
import pickle
import resource
import stat
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fakes import save_image
from hostile import COUNTS, counted, damaged, examples, judged, twisted
from hypothesis import given
from hypothesis import strategies as st
from tiers import cases

from job.data import packed
from job.data.archives import unpack
from job.data.decode import UnreadableImageError, decode
from job.data.listing import DataRoot, class_folders, image_list
from job.data.s3 import index as remote_index
from job.data.s3.index import Member
from job.data.sources import PackedImages
from job.engine.weights.match import read_weights
from job.errors import DataError, ManifestError, UsageError
from job.manifest import Manifest, load, parse
from job.manifest.schema import keys
from job.stages import STAGES
from job.storage.digests import Digests
from job.storage.s3.responses import S3Object
from job.uri import S3Uri, is_uri
from job.uri import parse as parse_uri

LEAST = 10_000
MEMORY = 1 << 30
MANIFESTS = Path(__file__).parents[2] / "manifests"
SHAPE = (1, 2, 3)


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Let this process have a gigabyte more than it has: a bomb is then a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the module's own; a test writes its input to the same file again and again."""
    return tmp_path_factory.mktemp("hostile")


# Manifests

DOCUMENTS = [json.loads(path.read_bytes()) for path in sorted(MANIFESTS.glob("*.json"))]
POINTERS = [key.pointer for key in keys()]
OVERRIDES = st.builds("{}={}".format, st.sampled_from(POINTERS) | st.text(max_size=8), st.text())


def check_manifest(manifest: Manifest, folder: Path) -> None:
    """What a valid manifest promises; what it names may be missing or unreadable, no more."""
    assert parse(json.loads(json.dumps(manifest.resolved)), "again", manifest.base) == manifest
    digests = Digests(folder / "none.json")
    for stage in STAGES:
        json.dumps(stage.settings(manifest), allow_nan=False)
        if any(is_uri(str(text)) for text in manifest.resolved["data"].values()) or is_uri(
            manifest.model.weights or manifest.model.inference_model or ""
        ):
            continue
        for path in stage.files(manifest):
            str(path).encode()
            judged("paths of manifests", lambda path=path: digests.identify(path), DataError)


@examples(1500)
@given(content=twisted(DOCUMENTS, POINTERS))
def test_twisted_manifests(content: bytes, folder: Path) -> None:
    path = folder / "m.json"
    path.write_bytes(content)
    manifest = judged("manifests, twisted", lambda: load(str(path)), ManifestError)
    if manifest is not None:
        check_manifest(manifest, folder)


@examples(1200)
@given(
    content=damaged([json.dumps(each, indent=1).encode() for each in DOCUMENTS], b'"version": 1,')
)
def test_damaged_manifests(content: bytes, folder: Path) -> None:
    path = folder / "m.json"
    path.write_bytes(content)
    manifest = judged("manifests, damaged", lambda: load(str(path)), ManifestError)
    if manifest is not None:
        check_manifest(manifest, folder)


@examples(500)
@given(overrides=st.lists(OVERRIDES, min_size=1, max_size=2))
def test_overrides(overrides: list[str], folder: Path) -> None:
    judged("overrides", lambda: parse(DOCUMENTS[1], "m.json", folder, overrides), UsageError)


# Lists and class folders


@pytest.fixture(scope="module")
def images(folder: Path) -> Path:
    """A data set with links inside and out, a pipe and a device, beside a file that is not its."""
    root = folder / "images"
    for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
        save_image(root / name)
    save_image(folder / "secret.png")
    (root / "cat/inside.png").symlink_to("0.png")
    (root / "cat/outside.png").symlink_to("../../secret.png")
    (root / "dog/outside").symlink_to("../..")
    (root / "dog/round").symlink_to("..")
    (root / "cat/loop.png").symlink_to("loop.png")
    (root / "cat/zero.png").symlink_to("/dev/zero")
    os.mkfifo(root / "cat/pipe.png")
    return root


LINES = [
    *("cat/0.png 0", "cat/1.png 0", "dog/0.png 1", "cat//0.png 0", "./cat/0.png 0", "a b.png 1"),
    *("../secret.png 0", "/etc/passwd 0", "cat/../../secret.png 1", "cat/outside.png 0", "x -1"),
    *("dog/outside/secret.png 0", "dog/round/cat/0.png 0", "cat/inside.png 1", "cat/loop.png 0"),
    *(
        "cat/pipe.png 1",
        "cat/zero.png 0",
        "cat 0",
        "cat/0.png 2",
        "cat/0.png 1e0",
        "cat/0.png",
        "0",
    ),
    *("cat/0.png ١", "cat/0.png 00", "cat/\0.png 0", "ünï.png 1", "\u2028 0", f"{'x' * 5000} 0"),
    *(f"cat/0.png {'9' * 30}", "cat/missing.png 0", " 0", "# 0", "cat/0.png\t1", "cat\\0.png 1"),
]
LISTS = st.lists(st.sampled_from(LINES), max_size=4).map(lambda lines: "\n".join(lines).encode())


@examples(1200)
@given(content=LISTS | damaged([b"cat/0.png 0\ndog/0.png 1\n" * 3], b"../secret.png 0\n"))
def test_lists(content: bytes, images: Path) -> None:
    (images / "list.txt").write_bytes(content)

    def act() -> None:
        place = DataRoot(images, str(images))
        source = image_list(place, "list.txt", classes=2, channels=3)
        for index, name in enumerate(source.names):
            assert Path(os.path.realpath(images / name)).is_relative_to(images)
            assert 0 <= source.labels[index] < 2
            judged("images of lists", lambda index=index: source.read(index), UnreadableImageError)

    judged("lists", act, DataError)


@examples(300)
@given(
    folder_name=st.sampled_from(["cat", "dog", "dog/round", "dog/outside", ".", "..", "cat/0.png"])
    | st.text(max_size=6)
)
def test_class_folders(folder_name: str, images: Path) -> None:
    place = DataRoot(images, str(images))
    judged(
        "class folders",
        lambda: class_folders(place, folder_name, classes=2, channels=3),
        DataError,
    )


# Packed files


def packed_content(count: int, images: int, labels: list[int]) -> bytes:
    pixels = np.linspace(-1, 1, images * math.prod(SHAPE), dtype="<f4")
    return struct.pack("<q", count) + pixels.tobytes() + np.asarray(labels, "<i8").tobytes()


PACKED = [packed_content(2, 2, [0, 1]), packed_content(5, 5, [0, 1, 2, 3, 4])]
COUNTS_IN_HEADERS = st.sampled_from([0, 1, -1, 2**31, 2**62, 2**63 - 1, -(2**63)]) | st.integers(
    -9, 9
)
HEADERS = st.builds(packed_content, COUNTS_IN_HEADERS, st.integers(0, 6), st.just([0, 1]))


def read_packed(path: Path) -> None:
    opened = packed.open_packed(path, SHAPE)
    assert len(opened.labels) == len(opened.images) >= 1
    source = PackedImages(path=path, shape=SHAPE, labels=opened.labels)
    for index in range(min(3, len(source))):
        judged(
            "images of packed files", lambda index=index: source.read(index), UnreadableImageError
        )


@examples(1200)
@given(
    content=damaged(PACKED, struct.pack("<f", math.nan)) | HEADERS,
    holes=st.sampled_from([0, 0, 48, 1 << 40]),
)
def test_packed_files(content: bytes, holes: int, folder: Path) -> None:
    path = folder / "a.bin"
    packed.sidecar(path).unlink(missing_ok=True)
    path.write_bytes(content)
    os.truncate(path, len(content) + holes)
    judged("packed files", lambda: read_packed(path), DataError)


SIDECAR = {"format": "packed", "count": 2, "shape": list(SHAPE), "dtype": "float32", "bytes": 72}


@examples(700)
@given(
    content=twisted([SIDECAR], [f"/{key}" for key in SIDECAR])
    | damaged([json.dumps(SIDECAR).encode()])
)
def test_sidecars(content: bytes, folder: Path) -> None:
    path = folder / "b.bin"
    path.write_bytes(PACKED[0])
    packed.sidecar(path).write_bytes(content)
    judged("sidecars", lambda: packed.open_packed(path, SHAPE), DataError)


# Archives

NAMES = st.sampled_from(
    [
        *(
            "set/cat/0.png",
            "set/dog/0.png",
            "set",
            "set/cat",
            "../evil.png",
            "/evil.png",
            "set/../a",
        ),
        *(
            "a\\b",
            "a\0b",
            "x" * 300,
            "/".join("y" * 120),
            "",
            ".",
            "..",
            "./set/a",
            "set//b",
            "\udc80",
        ),
        *("C:\\evil", "evil.png\n", "set/cat/0.png/deeper", "~/.ssh/x", "é/ü.png", "x" * 5000),
    ]
)
TYPES = st.sampled_from(
    [
        *(tarfile.REGTYPE,) * 6,
        *(tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE),
        *(
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_SPARSE,
            b"S",
            b"?",
        ),
    ]
)
PAX = st.dictionaries(
    st.sampled_from(
        ["size", "path", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.size", "mtime"]
    ),
    st.sampled_from(["0", "1", "-1", "9" * 20, "../evil.png", "1,1", "NaN", "x"]),
    max_size=2,
)
BODIES = st.sampled_from([b"", b"cat", b"dog" * 400, bytes(1000), bytes(400_000)])
MEMBERS = st.lists(st.tuples(NAMES, TYPES, BODIES, PAX), min_size=1, max_size=3)
TAR_FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])


def tar_of(members: list[Any], kind: int, compressed: bool) -> bytes:
    """An archive of hostile members; what tarfile does not write is left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compressed else "w", format=kind) as tar:
        for name, type_, body, pax in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.pax_headers = type_, len(body), pax
            member.linkname = "/etc/passwd"
            try:
                tar.addfile(member, io.BytesIO(body))
            except (ValueError, OSError, KeyError):
                continue
    return buffer.getvalue()


def zip_of(members: list[Any], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as opened:
        for name, type_, body, _ in members:
            member = zipfile.ZipInfo(name)
            if type_ in (tarfile.SYMTYPE, tarfile.CHRTYPE):
                member.external_attr = (
                    stat.S_IFLNK if type_ == tarfile.SYMTYPE else stat.S_IFCHR
                ) << 16
            member.compress_type = method
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    opened.writestr(member, body)
                except (ValueError, OSError, struct.error):
                    continue
    return buffer.getvalue()


GOOD_MEMBERS: list[Any] = [
    ("set/cat/0.png", tarfile.REGTYPE, b"cat" * 50, {"mtime": "1.5"}),
    ("set/" + "y" * 120 + "/1.png", tarfile.REGTYPE, os.urandom(0) + bytes(range(256)), {}),
]
TARS = [tar_of(GOOD_MEMBERS, kind, False) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
GZIPS = [tar_of(GOOD_MEMBERS, tarfile.PAX_FORMAT, True)]
ZIPS = [zip_of(GOOD_MEMBERS, zipfile.ZIP_DEFLATED), zip_of(GOOD_MEMBERS, zipfile.ZIP_STORED)]


def unpack_safely(name: str, content: bytes, folder: Path) -> None:
    """Unpack in a folder of its own; nothing may appear beside the cache or survive a refusal."""
    place = folder / name.partition(".")[2]
    place.mkdir(exist_ok=True)
    archive, cache = place / name, place / "inner" / "cache"
    archive.write_bytes(content)
    unpacked = judged(f"{archive.suffix} archives", lambda: unpack(archive, cache), DataError)
    assert {path.name for path in place.iterdir()} <= {name, "inner"}
    assert [path.name for path in (place / "inner").iterdir()] == ["cache"]
    left = [path for path in cache.iterdir() if path.name != ".lock"]
    if unpacked is None:
        assert not left
        return
    for path in unpacked.rglob("*"):
        assert path.is_dir() or (path.is_file() and not path.is_symlink())
    for path in sorted(left[0].rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    left[0].rmdir()
    archive.unlink()


@examples(1000)
@given(content=st.builds(tar_of, MEMBERS, TAR_FORMATS, st.just(False)) | damaged(TARS, *TARS))
def test_tars(content: bytes, folder: Path) -> None:
    unpack_safely("a.tar", content, folder)


@examples(400)
@given(content=st.builds(tar_of, MEMBERS, TAR_FORMATS, st.just(True)) | damaged(GZIPS))
def test_gzipped_tars(content: bytes, folder: Path) -> None:
    unpack_safely("a.tar.gz", content, folder)


METHODS = st.sampled_from(
    [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)


@examples(700)
@given(content=st.builds(zip_of, MEMBERS, METHODS) | damaged(ZIPS, b"PK\x01\x02", b"PK\x05\x06"))
def test_zips(content: bytes, folder: Path) -> None:
    unpack_safely("a.zip", content, folder)


# Weights

ARRAYS = OrderedDict(
    a=np.arange(6, dtype="float32").reshape(2, 3),
    b=("linear.w", np.asfortranarray(np.ones((2, 2)))),
    c=np.float32(1),
    d=np.zeros(3, ">i4"),
    e=[1, -2, None, 2.5, "text", True, 10**20],
)
PICKLES = [pickle.dumps(ARRAYS, protocol) for protocol in (2, 3, 4, 5)]
OPCODES = [
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"R", b"b"),
    *(
        b"(",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"}",
        b"]",
        b")",
        b"s",
        b"u",
        b"e",
        b"a",
        b"0",
        b"1",
        b"2",
    ),
    *(
        b"r\xff\xff\xff\x7f",
        b"q\x01",
        b"h\x01",
        b"\x94",
        b"\x93",
        b"K\x01",
        b"\x8a\x08" + b"\x7f" * 8,
    ),
    *(b"X\xff\xff\xff\x7f", b"\x8e" + b"\xff" * 8, b"\x96" + b"\x7f" * 8, b"\x8c\x01O", b"."),
    *(
        b"ccollections\nOrderedDict\n",
        b"c_codecs\nencode\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
    ),
    *(b"\x82\x01", b"\x81", b"P0\n", b"Q", b"I1\n", b"S'x'\n", b"F1\n", b"N", b"\x88", b"\x80\x06"),
]


@examples(2000)
@given(
    content=damaged(PICKLES, *OPCODES)
    | st.lists(st.sampled_from(OPCODES), max_size=9).map(b"".join)
)
def test_weights(content: bytes, folder: Path) -> None:
    path = folder / "w.pdparams"
    path.write_bytes(content)
    arrays = judged("weights", lambda: read_weights(path, None).arrays, DataError)
    for array in (arrays or {}).values():
        assert array.dtype.kind in "biuf"
        assert array.nbytes <= len(content)


# Images


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[bytes]:
    """A small picture in each format."""
    names = ("a.png", "a.jpg", "a.gif", "a.bmp", "a.tif", "a.webp", "a.ppm")
    return [save_image(folder / name).read_bytes() for name in names]


@examples(900)
@given(data=st.data())
def test_images(data: st.DataObject, pictures: list[bytes], folder: Path) -> None:
    path = folder / "a.jpg"
    path.write_bytes(data.draw(damaged(pictures, b"IDAT", b"\xff\xc0", b"\xff\xd8", b"acTL")))
    pixels = judged("images", lambda: decode(path, 3), UnreadableImageError)
    if pixels is not None:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


# Addresses and indexes

ADDRESSES = [
    *(b"s3://bucket/a/key", b"s3://bucket", b"s3://my.bucket-1/x/", b"S3://b/k", b"s3:/b/k"),
    *(b"https://host/b/k", b"s3://bucket/a/../../b", b"s3://bucket/%2e%2e/x", b"s3://a..b/k"),
    *(b"s3://AKIAIOSFODNN7EXAMPLE:word@bucket/k", b"s3://bucket/k?versionId=1", b"s3:///k"),
]


@examples(500)
@given(text=damaged(ADDRESSES, b"s3://", b"..", b"%00", b"?", b"#", "\u202e".encode()))
def test_addresses(text: bytes) -> None:
    shown = text.decode("utf-8", "surrogateescape")
    uri = judged("addresses", lambda: parse_uri(shown), UsageError)
    if uri is not None:
        assert parse_uri(str(uri)) == uri
        assert not {"", ".", ".."} & set(uri.key.split("/")) or uri.key == ""


ROOT = S3Uri("bucket", "set")
OBJECT = S3Object(ROOT / "cat/0.png", 12, '"etag"', datetime.fromtimestamp(0, UTC))
SHARD = [Member("cat/0.png", 12, "0" * 64, 512), Member("dog/0.png", 9, "1" * 64, 1536)]
INDEXES = [
    b"".join(remote_index.object_lines(ROOT, [(OBJECT.uri.key, OBJECT.bytes, OBJECT.etag)])),
    remote_index.of_shards(ROOT, [(OBJECT, SHARD)]),
]


@examples(500)
@given(content=damaged(INDEXES, b"members", b"objects", b"-1", b"1e99", b"[]", b"{}", b"\n"))
def test_indexes(content: bytes, folder: Path) -> None:
    path = folder / "index"
    path.write_bytes(content)

    def act() -> None:
        index = remote_index.read(path, ROOT)
        for place in range(len(index.names)):
            piece = index.piece(place)
            assert piece.of.uri.bucket == ROOT.bucket
            assert piece.of.uri.key.startswith(ROOT.below)

    judged("indexes", act, DataError)


def test_enough_inputs_were_tried(
    request: pytest.FixtureRequest, tell: Callable[[str], None]
) -> None:
    """Stands last; with -k, when others are left out, it only tells."""
    tell(counted())
    here = [item for item in request.session.items if item.fspath == request.node.fspath]
    everything = [name for name in globals() if name.startswith("test_")]
    if len(here) == len(everything):
        primary = [counts for kind, counts in COUNTS.items() if " of " not in kind]
        assert sum(sum(counts.values()) for counts in primary) >= cases(LEAST)
