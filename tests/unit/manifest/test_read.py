import io
import json
import re
from pathlib import Path

import pytest
from sample_manifest import MINIMAL, check, document, faults

from job.errors import ManifestError, UsageError
from job.manifest import load


def write(folder: Path, content: str | bytes) -> str:
    path = folder / "manifest.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


# Reading


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1,\n "b": }', r"not JSON: Expecting value at line 2, column 7, found '}'"),
        ("", r"not JSON: Expecting value at line 1, column 1, found the end"),
        (b'{"a":\n "\xff"}', r"not UTF-8: byte 0xff at line 2, column 3"),
        (b"\xef\xbb\xbf{,", r"not JSON: .* at line 1, column 2"),
        (b"\xff\xfe{\0}\0", r"not UTF-8: byte 0xff at line 1, column 1"),
        (
            '{"train": {"epochs": 1,\n  "epochs": 2}}',
            r"/train/epochs: .* at line 1, column 12 and at line 2, column 3",
        ),
        ('{"a": [1, NaN]}', r"/a/1: .*found NaN at line 1, column 11"),
        ('{"a": -Infinity}', r"/a: .*found -Infinity"),
        ('{"a": 1e999}', r"/a: .*found 1e999"),
        ('{"a": ' + "1" * 5000 + "}", r"/a: .* a number of 5000 digits at line 1, column 7"),
        ("[" * 900 + "]" * 900, r"more than 64 levels"),
        ("[" * 100_000, r"more than 64 levels"),
        ("3", r"/: .*found 3"),
        ("version: 1\nname: tiny\n", r"not JSON: .*YAML.* JSON"),
        ("# run\n\n---\nmodel:\n  name: resnet18\n", r"not JSON: .*YAML"),
        ('"version": 1', r"not JSON: Extra data at line 1, column 10"),
    ],
)
def test_unreadable_json_is_placed(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message) as caught:
        load(write(tmp_path, content))
    assert caught.value.exit_code == 2
    # No key explains text that is not JSON.
    assert bool(caught.value.hint) == any(fault.pointer for fault in caught.value.faults)


def test_every_duplicate_and_bad_number_is_listed(tmp_path: Path) -> None:
    text = '{"a": [{"x": 1, "x": "} \\" {"}], "a": NaN, "b": {"a": 1, "c": [{}, Infinity]}}'
    with pytest.raises(ManifestError, match="4 faults") as caught:
        load(write(tmp_path, text))
    assert [fault.pointer for fault in caught.value.faults] == ["/a/0/x", "/a", "/a", "/b/c/1"]


def test_same_key_in_different_objects_is_no_duplicate() -> None:
    assert load("-", stdin=io.StringIO(json.dumps(MINIMAL))).name == "tiny"


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(MINIMAL)
    assert load(write(tmp_path, text)).name == "tiny"
    assert load("-", stdin=io.StringIO(text)).name == "tiny"


@pytest.mark.parametrize("name", ["missing.json", ".", "nul\0byte"])
def test_file_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / name))):
        load(str(tmp_path / name))


def test_standard_input_that_is_not_utf8() -> None:
    stream = io.TextIOWrapper(io.BytesIO(b'{\n"\xff'), encoding="utf-8")
    with pytest.raises(ManifestError, match="byte 0xff at line 2, column 2"):
        load("-", stdin=stream)


# Overrides


@pytest.mark.parametrize("place", ["train.max_iters", "/train/max_iters"])
def test_override_by_path_or_pointer(place: str) -> None:
    assert check(MINIMAL, f"{place}=100").train.max_iters == 100


def test_override_values() -> None:
    manifest = check(
        document(benchmark__batch_sizes=[1, 2]),
        "benchmark.batch_sizes.1=32",
        "/data/mean/0=0.25",
        "name=other",
        "output=a=b",
        "model.weights=null",
        'data.augment={"crop": "none"}',
        "train.schedule.gamma=0.5",
    )
    assert manifest.benchmark.batch_sizes == (1, 32)
    assert manifest.data.mean == (0.25, 0.456, 0.406)
    assert (manifest.name, manifest.output) == ("other", "a=b")
    assert manifest.data.augment.crop == "none"
    assert manifest.data.augment.flip is True
    assert manifest.train.schedule.gamma == 0.5


def test_last_override_wins() -> None:
    assert check(MINIMAL, "train.seed=1", "train.seed=2").train.seed == 2


def test_override_is_validated_like_the_file() -> None:
    found = faults(MINIMAL, "train.epochs=many", "gates.min_sped=2", "train.base_lr=NaN")
    assert '"many"' in found["/train/epochs"].message
    assert found["/gates/min_sped"].suggestion == "min_speedup"
    assert 'found "NaN"' in found["/train/base_lr"].message


@pytest.mark.parametrize(
    ("override", "place", "message", "suggestion"),
    [
        ("foo.bar=1", "/foo/bar", "/foo does not exist", ""),
        (
            "trian.epochs=1",
            "/trian/epochs",
            "/trian does not exist",
            "/train/epochs",
        ),
        ("data.mean.7=1", "/data/mean/7", "3 items, so index 7", ""),
        ("data.mean.x=1", "/data/mean/x", "index x", ""),
        ("data.mean.-1=1", "/data/mean/-1", "index -1", ""),
        ("train.epochs.x=1", "/train/epochs/x", "/train/epochs is not an object or array", ""),
    ],
)
def test_override_of_nothing(override: str, place: str, message: str, suggestion: str) -> None:
    found = faults(MINIMAL, override)
    assert message in found[place].message
    assert found[place].suggestion == suggestion


@pytest.mark.parametrize("override", ["train.epochs", "=1", "/=1", ""])
def test_override_without_pointer_or_value(override: str) -> None:
    with pytest.raises(UsageError, match=rf"--set {re.escape(repr(override))}"):
        check(MINIMAL, override)
