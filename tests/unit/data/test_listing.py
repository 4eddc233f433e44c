import os
from pathlib import Path

import numpy as np
import pytest
from data_fakes import save_folders, save_image

from job.data.listing import DataRoot, class_folders, image_list
from job.data.s3.images import Remote, remote_class_folders
from job.data.s3.index import RemoteIndex
from job.data.sources import ImageFiles, digits
from job.errors import DataError
from job.storage.s3.access import Access
from job.storage.s3.client import S3Settings
from job.uri import S3Uri


@pytest.fixture
def place(tmp_path: Path) -> DataRoot:
    root = tmp_path / "root"
    root.mkdir()
    return DataRoot(root, str(root))


def read_list(place: DataRoot, content: str | bytes) -> ImageFiles:
    raw = content.encode() if isinstance(content, str) else content
    (place.folder / "list.txt").write_bytes(raw)
    return image_list(place, "list.txt", classes=10, channels=3)


def test_a_list_gives_paths_and_labels(place: DataRoot) -> None:
    save_image(place.folder / "val/a b.png")
    source = read_list(place, "\ufeffval/a b.png 3\r\n\n./val//c.png\t9\n")
    assert source.names == ("val/a b.png", "val/c.png")
    assert source.labels.tolist() == [3, 9]
    assert source.labels.dtype == np.int64
    assert source.read(0).shape == (10, 12, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the list is empty"),
        ("\n \n", "the list is empty"),
        ("a.png 1\nb.png\n", r"list\.txt:2: expected `path label`.*found 'b\.png'"),
        ("a.png one\n", r"list\.txt:1: expected `path label`"),
        ("a.png 1.5\n", r"list\.txt:1: expected `path label`"),
        (f"a.png {'9' * 5000}\n", r"list\.txt:1: expected `path label`"),
        ("x\0y/a.png 1\n", r"list\.txt:1: .*NUL"),
        ("a.png ²\n", r"list\.txt:1: expected `path label`"),
        ("a.png 0\nb.png 10\n", r"list\.txt:2: .*10 .*0 to 9"),
        ("a.png -1\n", r"list\.txt:1: .*-1 .*0 to 9"),
        ("../a.png 1\n", r"list\.txt:1: '\.\./a\.png' "),
        ("x/../../a.png 1\n", r"list\.txt:1: .*`\.\.`"),
        ("/etc/passwd 1\n", r"list\.txt:1: '/etc/passwd' "),
        (b"a.png 1\n\xff\xd8\xff 1\n", r"list\.txt:2: .*UTF-8"),
        ("a.png 1\nt/b.png, 2\n", r"list\.txt:2: .*','"),
        ("a.png,1\n", r"list\.txt:1: .*','"),
        ("a.png ;1\n", r"list\.txt:1: .*';'"),
        ("a.png\t|\t1\n", r"list\.txt:1: .*'\|'"),
        ('a.png 1\n"b c.png" 2\n', r"list\.txt:2: .*quotes"),
        ("'a.png' 1\n", r"list\.txt:1: .*quotes"),
        ('"a.png 1"\n', r"list\.txt:1: .*quotes"),
        ('a.png "1"\n', r"list\.txt:1: .*quotes"),
        ("\u201ca.png\u201d 1\n", r"list\.txt:1: .*quotes"),
        ("a.png 1 2\n", r"list\.txt:1: .*one number"),
        ("a.JPEG 0.5 2\n", r"list\.txt:1: .*one number"),
        ("1 a.png\n", r"list\.txt:1: .*path first"),
        ("s3://bucket/a.png 1\n", r"list\.txt:1: .*data\.root"),
        ("t\\0.png 1\n", r"list\.txt:1: .*data\.root"),
        ("C:\\t\\0.png 1\n", r"list\.txt:1: .*data\.root"),
        ("a.png 1\rb.png\rc.png 2\r", r"list\.txt:2: .*found 'b\.png'"),
        ("a.png 1\n".encode("utf-16"), r"list\.txt:1: .*UTF-16"),
        ("path label\na.png 1\n", r"list\.txt:1: expected `path label`"),
    ],
)
def test_a_bad_list_names_the_line(place: DataRoot, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_list(place, content)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", [" ", "\t", "  \t "])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_line_end_and_every_space_is_read(
    place: DataRoot, end: str, between: str, mark: str
) -> None:
    lines = [f"a, b.png{between}1", f'it\'s "c".png{between}2', f"x/7 8{between}3"]
    source = read_list(place, "".join(f"{mark}{line}{end}" for line in lines))
    assert source.names == ("a, b.png", 'it\'s "c".png', "x/7 8")
    assert source.labels.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("labels", "message", "hint"),
    [
        (range(10, 0, -1), r"list\.txt:1: label 10 .* 1 to 10", "Subtract 1"),
        (range(1, 11), r"list\.txt:10: label 10 .* 1 to 10", "Subtract 1"),
        (range(11), r"list\.txt:11: label 10 .* 0 to 10", "model.classes"),
        (range(1, 13), r"list\.txt:10: label 10 .* 1 to 12", "model.classes"),
    ],
)
def test_labels_from_one_are_recognized(
    place: DataRoot, labels: range, message: str, hint: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_list(place, "".join(f"{label}.png {label}\n" for label in labels))
    assert hint in caught.value.hint


def test_a_missing_list_says_what_there_is(place: DataRoot) -> None:
    save_image(place.folder / "val_list.png")
    with pytest.raises(DataError, match=r"gone\.txt: No such(.|\n)*val_list\.png"):
        image_list(place, "gone.txt", classes=10, channels=3)


def test_a_missing_image_is_found_when_it_is_read(place: DataRoot) -> None:
    source = read_list(place, "nowhere/a.png 1\n")
    with pytest.raises(DataError, match=r"^no such file$"):
        source.read(0)


def test_links_that_leave_the_root_are_refused(place: DataRoot) -> None:
    outside = save_image(place.folder.parent / "outside/a.png")
    save_image(place.folder / "inside/b.png")
    (place.folder / "a.png").symlink_to(outside)
    (place.folder / "way").symlink_to(outside.parent)
    (place.folder / "b.png").symlink_to("inside/b.png")
    (place.folder / "near").symlink_to("inside")
    assert len(read_list(place, "b.png 1\nnear/b.png 2\n")) == 2
    for name in ("a.png", "way/a.png"):
        with pytest.raises(DataError, match=rf"{name}' .*link"):
            read_list(place, f"b.png 1\n{name} 1\n")


def test_four_channels_are_refused(place: DataRoot) -> None:
    (place.folder / "list.txt").write_text("a.png 1\n")
    with pytest.raises(DataError, match=r"model\.input_shape .*4 channels"):
        image_list(place, "list.txt", classes=10, channels=4)


def test_class_folders_give_sorted_labels(place: DataRoot) -> None:
    train = save_folders(place.folder / "train", ["dog", "cat"], 2)
    save_image(train / "cat/more/deep.PNG")
    save_image(train / "cat/.hidden.png")
    (train / "dog/notes.txt").touch()
    (train / ".git").mkdir()
    source, names = class_folders(place, "train", classes=2, channels=1)
    assert names == ["cat", "dog"]
    assert source.names[:3] == ("train/cat/0.png", "train/cat/1.png", "train/cat/more/deep.PNG")
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.ignored == 2
    assert source.read(2).shape == (10, 12, 1)


SYSTEM = ["@eaDir", "__MACOSX", ".thumbnails", "#recycle", "lost+found", "$RECYCLE.BIN", "@Recycle"]


@pytest.mark.parametrize("name", SYSTEM)
def test_images_in_system_folders_are_left_out_and_counted(place: DataRoot, name: str) -> None:
    train = save_folders(place.folder / "train", ["cat", "dog"], 1)
    for folder in (train, train / "cat", train / "dog/more"):
        save_image(folder / name / "deep/0.png")
    save_image(train / "dog/more/1.png")
    (train / "cat" / name / "link").symlink_to("/etc")
    source, names = class_folders(place, "train", classes=2, channels=3)
    assert names == ["cat", "dog"]
    assert source.names == ("train/cat/0.png", "train/dog/0.png", "train/dog/more/1.png")
    assert source.system_folders == {name: 3}
    assert source.ignored == 0


def test_images_in_system_folders_in_s3_are_left_out_and_counted() -> None:
    found = [f"train/{name}" for name in ("cat/0.png", "dog/more/1.png", "dog/.1.png", "cat/a.txt")]
    hidden = [f"train/{folder}{name}/0.png" for folder in ("", "cat/more/") for name in SYSTEM]
    outside = ["train/0.png", "train//0.png"]
    names = tuple(sorted(found + hidden + outside))
    uri = S3Uri("b", "k")
    index = RemoteIndex(uri, names, np.ones(len(names), np.int64), ("etag",) * len(names))
    remote = Remote(uri, Access(S3Settings(), Path("cache"), 1))
    source, class_names = remote_class_folders(index, remote, "train", classes=2, channels=3)
    assert class_names == ["cat", "dog"]
    assert source.names == ("train/cat/0.png", "train/dog/more/1.png")
    assert source.system_folders == dict.fromkeys(SYSTEM, 2)
    assert source.ignored == 2


def test_one_sign_is_a_class(place: DataRoot) -> None:
    save_folders(place.folder / "train", ["#", "$", "@", "_"], 1)
    assert class_folders(place, "train", classes=4, channels=3)[1] == ["#", "$", "@", "_"]


def test_the_number_of_class_folders_must_be_the_models(place: DataRoot) -> None:
    save_folders(place.folder / "train", ["cat", "dog"], 1)
    message = r"3 class folders.* 2 \(cat, dog\)"
    with pytest.raises(DataError, match=message):
        class_folders(place, "train", classes=3, channels=3)


def test_bad_class_folders_are_named(place: DataRoot) -> None:
    train = save_folders(place.folder / "train", ["cat", "dog"], 1)
    with pytest.raises(DataError, match=r"'tarin' in .*\n.* train\."):
        class_folders(place, "tarin", classes=2, channels=3)
    with pytest.raises(DataError, match=r"'\.\./x' "):
        class_folders(place, "../x", classes=2, channels=3)
    (train / "dog/0.png").rename(train / "dog/0.txt")
    with pytest.raises(DataError, match=r"train/dog in "):
        class_folders(place, "train", classes=2, channels=3)


def test_links_in_class_folders_stay_inside(place: DataRoot) -> None:
    train = save_folders(place.folder / "train", ["cat", "dog"], 1)
    (train / "dog/link.png").symlink_to("0.png")
    assert len(class_folders(place, "train", classes=2, channels=3)[0]) == 3
    (train / "dog/away.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match=r"away\.png' .*link"):
        class_folders(place, "train", classes=2, channels=3)
    (train / "dog/away.png").unlink()
    (train / "dog/deep").symlink_to("../cat")
    with pytest.raises(DataError, match=r"dog/deep in .*link"):
        class_folders(place, "train", classes=2, channels=3)


def test_digits_are_real_scans_in_uint8() -> None:
    source = digits(3)
    assert len(source) == 1797
    assert source.images.shape == (1797, 8, 8, 3)
    assert source.images.dtype == np.uint8
    assert (int(source.images.min()), int(source.images.max())) == (0, 255)
    assert set(source.labels.tolist()) == set(range(10))
    assert source.names[1796] == "digits#1796"
    assert source.read(5).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_a_list_that_never_ends_is_refused(place: DataRoot, kind: str) -> None:
    path = place.folder / "list.txt"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(DataError, match=r"list\.txt: "):
        image_list(place, "list.txt", classes=10, channels=3)


def test_a_list_without_lines_is_not_read_whole(place: DataRoot) -> None:
    path = place.folder / "list.txt"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(DataError, match=r"list\.txt:1: .*65,536 bytes"):
        image_list(place, "list.txt", classes=10, channels=3)
