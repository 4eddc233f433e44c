"""XML files and image sets of VOC, made by the tests."""

import io

import hostile
import pytest
from hypothesis import given

from job.detection import voc
from job.errors import DataError

CLASSES = {"dog": 0, "cat": 1}
SIZE = "<size><width>640</width><height>480</height><depth>3</depth></size>"


def thing(name: str = "dog", box: tuple[object, ...] = (11, 21, 30, 40), extra: str = "") -> str:
    corners = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml(*parts: str) -> bytes:
    return f"<annotation>{''.join(parts)}</annotation>".encode()


def read(content: bytes, image_size: tuple[int, int] | None = None) -> voc.VocImage:
    return voc.read(io.BytesIO(content), "a.xml", CLASSES, image_size=image_size)


def test_pixels_counted_from_1_become_edges():
    found = read(xml(SIZE, thing(box=(1, 1, 640, 480)), thing("cat", (11, 21, 11.5, 40))))
    assert found.annotations.boxes.tolist() == [[0, 0, 640, 480], [10, 20, 11.5, 40]]
    assert found.annotations.classes.tolist() == [0, 1]
    assert (found.size, found.empty) == ((480, 640), 0)


def test_difficult_is_optional():
    found = read(
        xml(
            SIZE,
            thing(extra="<difficult>1</difficult>"),
            thing(extra="<difficult>0</difficult>"),
            thing(),
            thing(extra="<difficult/>"),
        )
    )
    assert found.annotations.difficult.tolist() == [True, False, False, False]


def test_empty_boxes_are_dropped_and_counted():
    found = read(xml(SIZE, thing(box=(5, 5, 5, 9)), thing(), thing(box=(5, 9, 8, 5))))
    assert (len(found.annotations), found.empty) == (1, 2)


def test_image_without_objects():
    found = read(xml(SIZE))
    assert found.annotations.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "size", ["", SIZE.replace("640", "0"), "<size><width>0</width><height>0</height></size>"]
)
def test_unknown_size(size):
    """Boxes are compared with the image itself, if the file does not give its size."""
    content = xml(size, thing(box=(1, 1, 100, 100)))
    assert read(content).size is None
    assert len(read(content, (100, 100)).annotations) == 1
    with pytest.raises(DataError, match="50x100"):
        read(content, (100, 50))


def test_the_image_overrules_the_size_in_the_file():
    content = xml(SIZE, thing(box=(1, 1, 300, 700)))
    assert len(read(content, (800, 300)).annotations) == 1


def test_a_box_may_exceed_its_image_by_a_pixel():
    """Tools that count from 0 write 0."""
    found = read(xml(SIZE, thing(box=(0, 0, 641, 481))))
    assert found.annotations.boxes.tolist() == [[-1, -1, 641, 481]]


def test_parts_of_an_object_are_not_objects():
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    assert len(read(xml(SIZE, thing(extra=part))).annotations) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "a.xml: .*empty"),
        (b"<annotation>\n<object>\n</annotation>", "a.xml:3: not valid XML"),
        (b"\xff\xfe\x00", "a.xml:1"),
        (b'<?xml version="1.0" encoding="utf-7"?><annotation/>', "a.xml"),
        (b"<html/>", "<annotation>, found <html>"),
        (xml(SIZE, thing(), "<object/>"), r"object\[2\]: .*<name> is missing"),
        (xml("<object><name>dog</name></object>"), r"object\[1\]: .*<bndbox>"),
        (xml("<size><width>3</width></size>"), "size: .*<height>"),
        (xml(SIZE.replace("480", "4.5")), "size/height: .* found 4.5"),
        (xml(SIZE.replace("480", "-1")), "size/height: .* found -1"),
        (xml(SIZE.replace("480", "1e30")), "size/height: .*'1e30'"),
        (xml(thing("dgo")), r"object\[1\]/name: unknown class 'dgo'; the classes are 'dog', 'cat'"),
        (xml(thing("")), r"object\[1\]/name: .*empty"),
        (xml(thing(box=(1, 2, "1e30", 4))), "bndbox/xmax: .*'1e30'"),
        (xml(thing(box=(1, "x", 3, 4))), r"object\[1\]/bndbox/ymin: .*number up to .*, found 'x'"),
        (xml(thing(box=(1, "", 3, 4))), r"bndbox/ymin: .*found ''"),
        (xml(thing(box=(1, 2, "nan", 4))), "bndbox/xmax: .*'nan'"),
        (xml(thing(box=(1, 2, "1_0", 4))), "bndbox/xmax: .*'1_0'"),
        (xml(thing(extra="<difficult>2</difficult>")), r"object\[1\]/difficult: .* '2'"),
        (
            xml(SIZE, thing(), thing(box=(11, 21, 642, 40))),
            r"object\[2\]/bndbox: the box 11 21 642 40 .* 640x480",
        ),
        (xml(SIZE, thing(box=(-1, 5, 30, 40))), "the box -1 5 30 40 "),
    ],
)
def test_faults_name_file_and_element(content, expected):
    with pytest.raises(DataError, match=expected) as caught:
        read(content)
    assert caught.value.hint


def test_entities_are_refused():
    """A billion laughs would need gigabytes; an external entity would read another file."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><annotation>&e9;</annotation>'
    with pytest.raises(DataError, match=r"a\.xml: .*entity"):
        read(bomb.encode())
    other = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>'
    with pytest.raises(DataError, match=r"a\.xml: .*entity"):
        read(other.encode())


def test_a_plain_doctype_is_allowed():
    assert read(b"<!DOCTYPE annotation>" + xml(SIZE)).size == (480, 640)


def test_large_files_are_not_read():
    with pytest.raises(DataError, match="16 MiB"):
        read(xml(" " * voc.MAX_XML_BYTES))


@hostile.examples(3000)
@given(
    hostile.damaged(
        [xml(SIZE, thing(), thing("cat", (1, 2, 3.5, 4), "<difficult>1</difficult>"))],
        b"<!DOCTYPE a [",
        b'<!ENTITY e "&e;">',
        b"&e;",
        b"<object>",
        b'<?xml version="1.0" encoding="utf-16"?>',
        b"<a>" * 50_000,
    )
)
def test_damaged_files(content):
    hostile.judged("VOC annotations", lambda: read(content), DataError)


def names(text: str | bytes) -> tuple[str, ...]:
    content = text.encode() if isinstance(text, str) else text
    return voc.image_set(io.BytesIO(content), "train.txt")


def test_image_set():
    assert names("2007_000027\r\n\r  2007_000032 \nb 1\n") == ("2007_000027", "2007_000032", "b 1")
    assert names(b"\xef\xbb\xbfa\n") == ("a",)


def test_image_set_of_one_class():
    assert names("2008_000002 -1\n2008_000003  1\n2008_000007  0") == (
        "2008_000002",
        "2008_000003",
        "2008_000007",
    )


def test_names_that_end_with_a_number_are_no_flags():
    assert names("im 0\nim 1\n") == ("im 0", "im 1")


def test_pairs_of_paths_may_contain_spaces():
    (line,) = names("J/a b.JPG  A/a b.xml\n")
    assert voc.pair_of(line) == ("J/a b.JPG", "A/a b.xml")
    assert voc.pair_of("2007_000027") is None


def test_a_number_may_start_with_its_point():
    assert read(xml(thing(box=(".5", 1, 3, 4)))).annotations.boxes[0, 0] == -0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n \n", "train.txt: .*empty"),
        (b"a\n\xff\n", "train.txt:2: .*UTF-8"),
        ("a\nb\na\n", "train.txt:3: 'a' is also in line 1"),
        ("a\n../b\n", r"train.txt:2: '\.\./b' leads out"),
        ("/a\n", "train.txt:1: '/a' leads out"),
        ("a\nb.jpg\n", "train.txt:2: .* 'b.jpg'"),
    ],
)
def test_faults_of_image_sets(text, expected):
    with pytest.raises(DataError, match=expected):
        names(text)
