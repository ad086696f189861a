"""Pascal VOC: XML files become boxes, and every kind of broken file is one message."""

import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fsaf.config import DataConfig
from fsaf.data.faults import Faults
from fsaf.data.readers.voc import VocSplit, parse_xml
from fsaf.data.records import Classes, Records
from fsaf.errors import UserError

SIZE = "<size><width>100</width><height>50</height><depth>3</depth></size>"


def box(x1: Any, y1: Any, x2: Any, y2: Any, name: str = "cat", rest: str = "") -> str:
    return (
        f"<object><name>{name}</name>{rest}<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
    )


def xml(*objects: str, size: str = SIZE, filename: str = "a.jpg") -> str:
    return f"<annotation><filename>{filename}</filename>{size}{''.join(objects)}</annotation>"


def read(
    folder: Path,
    text: str | bytes,
    classes: Classes | None = None,
    faults: Faults | None = None,
    **options: Any,
) -> Records:
    (folder / "a.xml").write_bytes(text.encode() if isinstance(text, str) else text)
    if not (folder / "a.jpg").exists():
        Image.new("RGB", (100, 50)).save(folder / "a.jpg")
    split = VocSplit(annotations=folder, images=folder, **options)
    return split.read(classes, faults or Faults(), DataConfig())


def test_pixels_count_from_one_and_the_last_is_included(tmp_path: Path) -> None:
    records = read(tmp_path, xml(box(1, 1, 100, 50), box(11, 21, 40, 30, "dog"), box(5.5, 6, 7.25, 8)))
    (image,) = records.images
    assert (image.id, image.path, image.width, image.height) == (1, tmp_path / "a.jpg", 100, 50)
    assert image.boxes.tolist() == [[0, 0, 100, 50], [10, 20, 40, 30], [4.5, 5, 7.25, 8]]
    assert records.classes == Classes(names=("cat", "dog"), ids=(1, 2))
    assert image.labels.tolist() == [0, 1, 0] and image.items.tolist() == [1, 2, 3]
    assert not records.faults.counts  # xmin 0, a pixel too far left, is common and not a fault
    assert not read(tmp_path, xml(box(0, 0, 100, 50))).faults.counts


def test_difficult_objects_become_crowd_regions(tmp_path: Path) -> None:
    hard = box(1, 1, 20, 20, rest="<truncated>1</truncated><difficult>1</difficult>")
    records = read(tmp_path, xml(hard, box(1, 1, 20, 20, rest="<difficult>0</difficult>"), box(1, 1, 9, 9)))
    assert records.images[0].crowd.tolist() == [True, False, False]


def test_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    records = read(tmp_path, xml(box(1, 1, 20, 20, rest=part)))
    assert records.classes.names == ("cat",) and len(records.images[0].boxes) == 1


@pytest.mark.parametrize(
    "size", ["", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"]
)
def test_a_size_that_is_missing_comes_from_the_image(tmp_path: Path, size: str) -> None:
    (image,) = read(tmp_path, xml(box(1, 1, 20, 20), size=size)).images
    assert (image.width, image.height) == (100, 50)


def test_the_image_is_found_by_the_name_of_the_xml_file(tmp_path: Path) -> None:
    records = read(tmp_path, xml(box(1, 1, 20, 20), filename="renamed.jpg"))
    assert records.images[0].path == tmp_path / "a.jpg" and not records.faults.counts
    (tmp_path / "renamed.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    records = read(tmp_path, xml(box(1, 1, 20, 20), filename="renamed.jpg"))
    assert records.images[0].path == tmp_path / "a.jpg" and records.faults.counts == {"name-differs": 1}
    (tmp_path / "a.jpg").rename(tmp_path / "picture.jpg")
    Image.new("RGB", (100, 50)).save(tmp_path / "b.jpg")
    (tmp_path / "a.xml").write_text(xml(box(1, 1, 20, 20), filename="picture.jpg"))
    records = VocSplit(annotations=tmp_path, images=tmp_path).read(None, Faults(), DataConfig())
    assert records.images[0].path == tmp_path / "picture.jpg"


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 50}">' for a, b in zip("abcdef", "bcdefg", strict=True))
    + "]>"
)

BROKEN = {
    "not XML": ("hello", "not readable as XML"),
    "empty": ("", "not readable as XML"),
    "cut short": (xml(box(1, 1, 20, 20))[:100], "not readable as XML"),
    "bytes": (b"\x89PNG\r\n\x1a\n\xff\xfe", "not readable as XML"),
    "an unknown encoding": ('<?xml version="1.0" encoding="klingon"?>' + xml(), "not readable as XML"),
    "another root": ("<svg/>", "its root is <svg>"),
    "entities": (LAUGHS + xml(box(1, 1, 20, 20, "&g;")), "holds a DOCTYPE"),
    "a file's text": (
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + xml(box(1, 1, 20, 20, "&a;")),
        "holds a DOCTYPE",
    ),
    "no name": (xml("<object><bndbox/></object>"), "object 1: needs a name"),
    "no box": (xml(box(1, 1, 20, 20), "<object><name>cat</name></object>"), "object 2: needs a name, and a"),
    "three corners": (xml(box(1, 1, 20, 20).replace("<ymax>20</ymax>", "")), "object 1: needs"),
    "a word for a number": (xml(box("left", 1, 20, 20)), "'left'"),
    "NaN": (xml(box(1, "nan", 20, 20)), "'nan'"),
    "infinite": (xml(box(1, 1, "1e999", 20)), "'1e999'"),
    "no objects at all": (xml(), "no object in any of its 1 files"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_message_with_file_and_value(tmp_path: Path, name: str) -> None:
    text, told = BROKEN[name]
    start = time.perf_counter()
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    message = str(error.value)
    assert message.startswith(str(tmp_path)) and told in message
    assert len(message) < 300 + len(str(tmp_path)) and "\n" not in message
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("filename", ["../../etc/b.jpg", "/etc/b.jpg", "C:\\photos\\b.jpg"])
def test_a_filename_that_leaves_matters_only_if_no_image_has_the_name_of_the_file(
    tmp_path: Path, filename: str
) -> None:
    assert read(tmp_path, xml(box(1, 1, 20, 20), filename=filename)).images[0].path.name == "a.jpg"
    (tmp_path / "a.jpg").rename(tmp_path / "b.jpg")
    records = VocSplit(annotations=tmp_path, images=tmp_path).read(None, Faults(), DataConfig())
    assert records.images[0].path == tmp_path / "b.jpg"  # the name without its folders
    (tmp_path / "b.jpg").rename(tmp_path / "c.jpg")
    with pytest.raises(UserError, match=r"b\.jpg' leaves"):
        VocSplit(annotations=tmp_path, images=tmp_path).read(None, Faults(), DataConfig())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_a_document_type_is_refused_in_every_encoding(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY b "é">]><a>&b;</a>'
    with pytest.raises(ValueError, match="DOCTYPE"):
        parse_xml(text.encode(encoding))
    named = f'<?xml version="1.0" encoding="{encoding}"?><a>é &amp; &#228;</a>'
    assert parse_xml(named.encode(encoding)).text == "é & ä"


def test_boxes_without_area_are_left_out_and_told(tmp_path: Path) -> None:
    objects = [box(20, 20, 1, 1), box(5, 5, 4, 9), box(150, 5, 160, 9), box(60, 20, 130, 40), box(5, 5, 5, 5)]
    records = read(tmp_path, xml(*objects), faults=Faults(keep=None))
    counts = {"box-inverted": 1, "box-empty": 1, "box-outside": 1, "box-clipped": 1}
    assert records.faults.counts == counts and records.dropped == 3
    assert records.images[0].boxes.tolist() == [[59, 19, 100, 40], [4, 4, 5, 5]]
    (fault,) = records.faults.kept["box-outside"]
    assert (fault.file, fault.image, fault.item) == (tmp_path / "a.xml", 1, 3)


def test_image_sets(tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("\ufeffa\r\n\r\n", encoding="utf-8")
    assert len(read(tmp_path, xml(box(1, 1, 9, 9)), image_set=listed).images) == 1
    for text, told in (
        ("a\na\n", "'a' appears twice"),
        ("../a\n", "line 1: '../a' leaves"),
        ("a\ngone\n", r"gone.xml: not readable as XML"),
        ("a  -1\n", r"a  -1.xml: not readable as XML"),
    ):
        listed.write_text(text)
        with pytest.raises(UserError) as error:
            read(tmp_path, xml(box(1, 1, 9, 9)), image_set=listed)
        assert told in str(error.value)


def test_classes_of_a_checkpoint_are_matched_by_name(tmp_path: Path) -> None:
    wanted = Classes(names=("zebra", "cat"), ids=(7, 9))
    records = read(tmp_path, xml(box(1, 1, 9, 9), box(1, 1, 9, 9, "dog")), wanted)
    assert records.classes is wanted and records.images[0].labels.tolist() == [1]
    assert records.faults.counts == {"box-other-class": 1}
    with pytest.raises(UserError, match=r"of the classes cat the detector has none; it has zebra"):
        read(tmp_path, xml(box(1, 1, 9, 9)), Classes(names=("zebra",), ids=(1,)))
