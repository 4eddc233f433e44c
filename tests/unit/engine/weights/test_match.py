import hashlib
import os
import pickle
import re
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from job.engine.weights.match import match, read_weights
from job.errors import DataError

ARRAYS = {"conv.weight": np.ones((2, 3), "float32"), "fc.weight": np.zeros((4, 5), "float32")}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.pdparams"


class Hostile:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.system, (f"touch {self.folder}/hacked",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_arrays_are_read(path, protocol, kind):
    path.write_bytes(pickle.dumps(kind(ARRAYS), protocol=protocol))
    found = read_weights(path, hashlib.sha256(path.read_bytes()).hexdigest()).arrays
    assert list(found) == list(ARRAYS)
    for name in ARRAYS:
        np.testing.assert_array_equal(found[name], ARRAYS[name])


def test_named_tensors_and_scalars_are_read(path):
    document = {"a": ("linear_0.w_0", np.ones(3)), "step": 7, "scalar": np.float32(1)}
    path.write_bytes(pickle.dumps(document, protocol=2))
    assert list(read_weights(path, None).arrays) == ["a"]


def test_hostile_pickle_is_refused_and_not_run(path, tmp_path):
    path.write_bytes(pickle.dumps({"a": Hostile(tmp_path)}))
    with pytest.raises(DataError, match=r"posix\.system"):
        read_weights(path, None)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.", "numpy.core.multiarray.fromfile"),
    ],
)
def test_other_callables_are_refused(path, code, name):
    path.write_bytes(code)
    with pytest.raises(DataError, match=re.escape(name)):
        read_weights(path, None)


def test_missing_file_is_named(path):
    with pytest.raises(DataError, match=r"w\.pdparams: No such file"):
        read_weights(path, None)


def test_wrong_digest_is_told(path):
    path.write_bytes(pickle.dumps(ARRAYS))
    with pytest.raises(DataError, match=r"SHA-256 .*[0-9a-f]{64}.* 0000"):
        read_weights(path, "0" * 64)


@pytest.mark.parametrize("keep", [0, 1, 10, 0.3, 0.5, 0.9, 0.999])
def test_truncated_file_is_refused(path, keep):
    content = pickle.dumps(ARRAYS, protocol=4)
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(DataError, match=r"w\.pdparams: "):
        read_weights(path, None)


@pytest.mark.parametrize("document", [[1, 2], {}, {"a": 1}, None])
def test_file_without_arrays_is_refused(path, document):
    path.write_bytes(pickle.dumps(document))
    with pytest.raises(DataError, match=r"w\.pdparams: .*arrays"):
        read_weights(path, None)


WANTED = {"conv.weight": (2, 3), "fc.weight": (4, 5)}


def test_match_takes_what_the_network_has():
    extra = {**ARRAYS, "optimizer.state": np.ones(1)}
    assert list(match(extra, WANTED, source="w", reset_classifier=False)) == list(WANTED)


def test_missing_weights_are_named():
    with pytest.raises(DataError, match=r"1 of 2 .*fc\.weight"):
        match({"conv.weight": ARRAYS["conv.weight"]}, WANTED, source="w", reset_classifier=True)


def test_classifier_of_another_size_is_reset_only_when_asked():
    wanted = {**WANTED, "fc.weight": (4, 9)}
    with pytest.raises(DataError, match=r"fc\.weight .*\[4, 5\].*\[4, 9\]"):
        match(ARRAYS, wanted, source="w", reset_classifier=False)
    assert list(match(ARRAYS, wanted, source="w", reset_classifier=True)) == ["conv.weight"]


def test_other_layers_are_never_reset():
    wanted = {**WANTED, "conv.weight": (7, 3)}
    with pytest.raises(DataError, match=r"conv\.weight .*\[2, 3\].*\[7, 3\]"):
        match(ARRAYS, wanted, source="w", reset_classifier=True)


# Each name says what Python's unpickler with restricted globals does with the file.
ATTACKS = {
    "a memo of 16 GiB": (b"\x80\x02}r\xff\xff\xff\x7f.", "no arrays"),
    "an array of 8 GiB": (
        b"\x80\x02}X\x01\0\0\0acnumpy\nndarray\n\x8a\x05\0\0\0\x40\0\x85\x85Rs.",
        r"numpy\.ndarray",
    ),
    "a key that is hashed for hours": (
        b"\x80\x04}K\x01\x940"
        + b"".join(b"h%ch%c\x86\x940" % (n, n) for n in range(60))
        + b"h\x3cK\x01s.",
        "key.* tuple",
    ),
    "a dictionary with attributes of the file's": (
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sb.",
        "sets attributes",
    ),
    "a function of the job's with other attributes": (
        b"\x80\x02c_codecs\nencode\n}X\x01\0\0\0xK\x01sb.",
        "sets attributes",
    ),
    "bytes made of the same text again and again": (
        b"\x80\x02}X\xff\0\0\0"
        + b"a" * 255
        + b"q\x01X\x06\0\0\0latin1q\x02"
        + b"c_codecs\nencode\nh\x01h\x02\x86R" * 99
        + b".",
        "more bytes",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_at_no_cost(path, attack):
    content, says = ATTACKS[attack]
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=says):
            read_weights(path, None)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["O", "U3", "S3", "datetime64[s]", "complex64", "f4,f4"])
def test_arrays_of_other_things_than_numbers_are_refused(path, dtype):
    path.write_bytes(pickle.dumps({"a": np.zeros(3, dtype)}))
    with pytest.raises(DataError, match="expected numbers"):
        read_weights(path, None)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_layout_are_read(path, protocol):
    arrays = {
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "nothing": np.zeros((0, 3), "float16"),
        "one": np.array(7, "uint8"),
        "truth": np.array([True, False]),
    }
    path.write_bytes(pickle.dumps(arrays, protocol=protocol))
    found = read_weights(path, None).arrays
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_a_device_is_no_weights_file(path):
    path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"w\.pdparams: not a regular file"):
        read_weights(path, None)


def test_a_file_of_holes_is_not_read(path):
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(DataError, match="34,359,738,368"):
        read_weights(path, None)
