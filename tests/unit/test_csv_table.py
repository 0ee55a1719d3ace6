"""Tables as programs and people write them: read whole, or refused in one line."""

from __future__ import annotations

import json

import pytest
from refusals import refused

from splavu.data.csv_table import read_rows
from splavu.data.labels import read_json, read_ucf_labels

ROWS = [{"filename": "a.mp4", "x": "1"}, {"filename": "b c.mp4", "x": "0"}]


@pytest.mark.parametrize(
    "content",
    [
        b"filename,x\na.mp4,1\nb c.mp4,0\n",
        b"\xef\xbb\xbffilename,x\r\na.mp4,1\r\nb c.mp4,0\r\n",
        b"filename,x\ra.mp4,1\rb c.mp4,0",
        b'"filename", x \n"a.mp4","1"\n\n"b c.mp4",0\n',
    ],
    ids=["plain", "mark and CRLF", "CR", "quotes and spaces"],
)
def test_tables_of_any_program(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    assert read_rows(tmp_path / "t.csv", ("filename", "x")) == ROWS


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", "filename"),
        (b"filename,x\n", ()),
        (b"filename;x\na.mp4;1\n", "commas"),
        (b"filename\tx\na.mp4\t1\n", "commas"),
        ("filename,x\na.mp4,1\n".encode("utf-16"), "UTF-8"),
        (b"filename,x\na\0.mp4,1\n", "NUL"),
        (b"\x89PNG\r\n\x1a\n,filename\n1,2\n", "UTF-8"),
        (b'filename,x\na.mp4,"1\nb.mp4,0\n', "quote"),
        (b'filename,x\n"a".mp4,1\n', "quote"),
        (b"filename,x\na.mp4," + b"1" * 200_000 + b"\n", "131072"),
        (b"filename,x,x\na.mp4,1,0\n", "'x'"),
        (b"filename,x\na.mp4,1\na.mp4,0\n", "'a.mp4'"),
        (b"filename,x\na.mp4,1,0\n", "'a.mp4'"),
        (b"filename,x\na.mp4\n", "'a.mp4'"),
        (b"filename,x\n,1\n", "row 1"),
        (b"filename,x\na.mp4,caf\xe9\n", ("'a.mp4'", "UTF-8")),
    ],
)
def test_what_is_no_table_is_refused_by_name(tmp_path, content, names):
    (tmp_path / "t.csv").write_bytes(content)
    with refused("t.csv", naming=names):
        read_rows(tmp_path / "t.csv", ("filename", "x"))


def test_names_of_columns_are_one_printable_line(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'filename,"two\nlines","\x1b[2J"\na.mp4,0,1\n')
    assert list(read_rows(tmp_path / "t.csv")[0]) == ["filename", r"two\nlines", r"\x1b[2J"]


def test_names_of_files_are_bytes(tmp_path):
    """Whatever the file system allows; only a name may be other than UTF-8."""
    (tmp_path / "t.csv").write_bytes(b'filename,x\nlat\xe9.mp4,1\n"new\nline",0\n\xe2\x80\xa8.mp4,1\n')
    assert [row["filename"] for row in read_rows(tmp_path / "t.csv")] == ["lat\udce9.mp4", "new\nline", "\u2028.mp4"]
    (tmp_path / "list.txt").write_bytes(b"Run/v_lat\xe9.avi 1\r\nRun/v_\xe2\x80\xa8.avi 1\r\n")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": {"Run": 1}}))
    assert set(read_ucf_labels(tmp_path / "list.txt", tmp_path / "classes.json")) == {"v_lat\udce9", "v_\u2028"}


@pytest.mark.parametrize(
    "text",
    ['{"a": ' + "[" * 3000, '{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', "[1]", '{"a": ' + "9" * 5000 + "}", "{]"],
)
def test_json_that_no_one_should_read(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with refused("t.json"):
        read_json(tmp_path / "t.json")


def test_a_file_that_may_not_be_read(tmp_path):
    with refused(tmp_path):
        read_rows(tmp_path)
    with refused("t.csv"):
        read_rows(tmp_path / ("x" * 300) / "t.csv")
