"""The one reader of private-label tables: every spelling, every kind, and nothing dropped in silence."""

from __future__ import annotations

import re

import numpy as np
import pytest
from refusals import refused

from splavu.data.datasets import read_side_table
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.data.private_labels import read_private_table


def write(path, text):
    path.write_bytes(text.encode())
    return path


def column(tmp_path, *cells, **options):
    """The column `x` of a table with these cells."""
    rows = "".join(f"v{number}.mp4,{cell}\n" for number, cell in enumerate(cells))
    (found,) = read_private_table(write(tmp_path / "t.csv", f"filename,x\n{rows}"), **options).columns
    return found


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("0", "1", "1"), (0, 1, 1)),
        (("0.0", "1.0", "1."), (0, 1, 1)),
        (("True", "False", "true"), (1, 0, 1)),
        (("yes", "NO", " Yes "), (1, 0, 1)),
        (("y", "N", "y"), (1, 0, 1)),
        (("T", "f", "F"), (1, 0, 0)),
        (("-1", "1", "-1"), (0, 1, 0)),
        (("-1.0", "1", ""), (0, 1, np.nan)),
        (("-1", "0", "1"), (np.nan, 0, 1)),  # -1 says no only where there is no 0
        (("yes", "no", "-1"), (1, 0, np.nan)),
        (("yes", "0", "FALSE"), (1, 0, 0)),
        (("1", "", "0"), (1, np.nan, 0)),
        (("1", "nan", "NA"), (1, np.nan, np.nan)),
        (("None", "unknown", "0"), (np.nan, np.nan, 0)),
        (("?", "null", "1"), (np.nan, np.nan, 1)),
        (("n/a", "Unknown", "no"), (np.nan, np.nan, 0)),
        (("0", "0", "0"), (0, 0, 0)),
    ],
)
def test_binary_columns_in_the_spellings_people_write(tmp_path, cells, values):
    found = column(tmp_path, *cells)
    assert found.kind == "binary"
    np.testing.assert_array_equal(found.values, values)
    assert (found.record["no"], found.record["yes"]) == (values.count(0), values.count(1))
    assert found.record["unknown"] == len(values) - values.count(0) - values.count(1)


@pytest.mark.parametrize(
    ("cells", "values", "classes"),
    [
        (("1", "2", "1"), (0, 1, 0), ("1", "2")),
        (("0", "1", "2"), (0, 1, 2), ("0", "1", "2")),
        (("-1", "0", "2"), (0, 1, 2), ("-1", "0", "2")),
        (("10", "9.0", "9"), (1, 0, 0), ("9.0", "10")),
        (("f", "m", "f"), (0, 1, 0), ("f", "m")),
        (("Red", "red", "?"), (0, 0, np.nan), ("Red",)),
        (("a\x1b[2J", "b", "b"), (0, 1, 1), (r"a\x1b[2J", "b")),
        (("yes", "no", "perhaps", "no"), (2, 0, 1, 0), ("no", "perhaps", "yes")),
    ],
)
def test_classes(tmp_path, cells, values, classes):
    found = column(tmp_path, *cells)
    assert (found.kind, found.classes) == ("class", classes)
    np.testing.assert_array_equal(found.values, values)


def test_numbers_of_many_values_or_with_a_fraction_are_values(tmp_path):
    assert column(tmp_path, "0.5", "1", "").kind == "value"
    ages = column(tmp_path, *range(20, 31), "nan")
    assert ages.kind == "value"
    np.testing.assert_array_equal(ages.values, [*range(20, 31), np.nan])
    assert ages.record == {"name": "x", "kind": "value", "unknown": 1, "lowest": 20, "highest": 30}


@pytest.mark.parametrize(
    "cells", [("", "nan", "?"), ("-1", "-1", ""), ("saw her twice", "with dog", "rain"), ("inf", "1_0", "0x2")]
)
def test_what_fits_no_kind_is_refused_by_name(tmp_path, cells):
    with refused("t.csv"):
        column(tmp_path, *cells)


def test_the_kind_asked_for_decides(tmp_path):
    assert column(tmp_path, "0", "1", attributes="x:class").classes == ("0", "1")
    assert column(tmp_path, "0", "1", attributes="x:value").kind == "value"
    assert column(tmp_path, "rain", "dog", attributes=["x:class"]).kind == "class"
    with refused("t.csv"):
        column(tmp_path, "1", "2", attributes="x:binary")
    with refused("t.csv"):
        column(tmp_path, "0", "1", "-2", attributes="x:binary")
    assert column(tmp_path, "0", "1", "-1", attributes="x:class").classes == ("-1", "0", "1")
    with refused("t.csv"):
        column(tmp_path, "tall", "2", attributes="x:value")


TABLE = """filename,subject,gender,note,age,eyes
a.mp4,p1,f,one,23,blue
b.mp4,p2,m,two,41.5,blue
c.mp4,p2,m,three,3,brown
"""


def test_columns_that_are_asked_for_are_read_and_the_others_named(tmp_path):
    path = write(tmp_path / "t.csv", TABLE)
    with refused("t.csv"):
        read_private_table(path)  # the notes fit no kind
    table = read_private_table(path, attributes=" gender , age:value")
    assert [one.name for one in table.columns] == ["gender", "age"]
    assert table.skipped == ("note", "eyes")
    assert not table.attributes
    assert [record["kind"] for record in table.records] == ["class", "value", "not read", "not read"]
    assert all(name in table.summary("attacked") for name in ("gender", "age", "note", "eyes"))
    for attributes, culprit in (("height", "t.csv"), ("age:number", "--attributes"), ("age,age", "--attributes")):
        with refused(culprit):
            read_private_table(path, attributes=attributes)
    with refused("t.csv"):
        table.require_binary("audit")


def test_spaces_upper_case_and_a_byte_order_mark(tmp_path):
    text = "\ufefffilename , subject, Gender\r\nv.1.MP4,s1 , TRUE\r\nw.mp4,s2,fAlse\r\n"
    labels = read_private_table(write(tmp_path / "t.csv", text)).of(["v.1", "w"])
    assert labels.attributes == ("Gender",)
    assert {key: value.tolist() for key, value in labels.values.items()} == {"v.1": [1], "w": [0]}
    assert labels.subjects == {"v.1": "s1", "w": "s2"}


def test_who_is_who(tmp_path):
    text = "filename,subject,group,split,x\na.mp4,s1,g1,Training,0\nb.mp4,s2,g1,testing,1\n"
    table = read_private_table(write(tmp_path / "t.csv", text))
    assert (table.subjects, table.splits) == (("s1", "s2"), ("train", "test"))
    groups = write(tmp_path / "g.csv", "filename,group\nb,h2\na,h1\nc,h1\n")
    assert read_private_table(tmp_path / "t.csv", groups=groups).subjects == ("h1", "h2")
    only_groups = write(tmp_path / "o.csv", "filename,group,x\na.mp4,g1,0\nb.mp4,g2,1\n")
    assert read_private_table(only_groups).subjects == ("g1", "g2")
    assert read_private_table(write(tmp_path / "n.csv", "filename,x\na,0\nb,1\n")).subjects is None


@pytest.mark.parametrize(
    "text",
    [
        "filename,subject,x\na,s1,0\nb,,1\n",
        "filename,subject,x\na,,0\nb,,1\n",
        "filename,subject,x\na,s1,0\nb,nan,1\n",
        "filename,split,x\na,train,0\nb,,1\n",
        "filename,split,x\na,train,0\nb,dev,1\n",
        "filename,subject,split,x\na,s,train,0\nb,s,test,1\n",
        "filename,x,x\na,0,1\nb,1,0\n",
        "filename,x, x\na,0,1\nb,1,0\n",
        "filename,,x\na,0,1\nb,1,0\n",
        "filename,x\na,0\na,1\n",
    ],
    ids=str.__repr__,
)
def test_tables_that_would_be_misread_are_refused(tmp_path, text):
    with refused("t.csv"):
        read_private_table(write(tmp_path / "t.csv", text))


def test_groups_must_name_every_file_once(tmp_path):
    table = write(tmp_path / "t.csv", "filename,x\na,0\nb,1\n")
    for text in ("filename,group\na,g1\n", "filename,group\na,g1\nb,\n", "filename,group\na,g\na.avi,h\na,g\nb,g\n"):
        with refused("g.csv"):
            read_private_table(table, groups=write(tmp_path / "g.csv", text))


def test_a_side_table_gives_the_seven_attributes_or_all_binary_columns(tmp_path, caplog):
    seven = ",".join(VISPR_ATTRIBUTES[::-1])
    path = write(
        tmp_path / "p.csv",
        f"filename,subject,note,hat,{seven}\na.avi,s1,hm,1,0,1,0,,1,0,1\nb.avi,s2,hm,0,1,1,1,1,1,1,1\n",
    )
    with caplog.at_level("WARNING"):
        labels = read_side_table(path, ["a", "c"])
    assert labels.attributes == VISPR_ATTRIBUTES
    assert all(name in caplog.text for name in ("note", "hat")), "the user did not choose"
    np.testing.assert_array_equal(labels.values["a"], [1, 0, 1, np.nan, 0, 1, 0])
    assert labels.subjects == {"a": "s1"}
    write(path, "filename,subject,hat,age\na.avi,s1,1,20.5\nb.avi,s2,no,31\n")
    with caplog.at_level("INFO"):
        assert read_side_table(path, ["b"]).attributes == ("hat",)
    assert re.search(r"\bvalue\b.*: age$", caplog.text, flags=re.M)
    with refused("p.csv"):
        read_side_table(write(path, "filename,hat\na.avi,1\nb.avi,0\n"), ["a"])
