"""labels.csv of one's own videos: classes, splits, and what is no such table."""

import pytest
from refusals import refused

from splavu.data.label_table import read_label_table


def table(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_label_table(path)


def test_names_become_classes_in_their_order(tmp_path):
    found = table(
        tmp_path, "filename,label,split\nb/two.mp4,walk,test\none.avi,fall,train\nthree,walk,train\nfour,sit,val\n"
    )
    assert found.classes == ("fall", "sit", "walk")
    assert found.label_of == {"two": 2, "one": 0, "three": 2, "four": 1}
    assert found.splits == ("train", "val", "test")
    assert found.of("train") == {"one": 0, "three": 2}


def test_numbers_stay_as_they_are(tmp_path):
    found = table(tmp_path, "filename,label,split\na.mp4,4,train\nb.mp4,0,test\n")
    assert (len(found.classes), found.of("train"), found.splits) == (5, {"a": 4}, ("train", "test"))


def test_without_a_split_each_person_is_on_one_side_and_stays_there(tmp_path):
    rows = [f"p{person}_{video}.mp4,{video % 2},p{person}" for person in range(60) for video in range(3)]
    few = table(tmp_path, "\n".join(["filename,label,subject", *rows[:90]]))
    all_of_them = table(tmp_path, "\n".join(["filename,label,subject", *reversed(rows)]))
    assert few.split_of == {key: all_of_them.split_of[key] for key in few.split_of}
    sides = {person: {all_of_them.split_of[f"p{person}_{video}"] for video in range(3)} for person in range(60)}
    assert all(len(side) == 1 for side in sides.values())
    tested = sum(side == {"test"} for side in sides.values())
    assert 3 <= tested <= 22, "a fifth of 60, give or take three standard deviations"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("filename,split\na,train\n", "'label'"),
        ("filename,label,split\na,walk,train\nb,3,test\n", ("'b'", "3", "'a'", "'walk'")),
        ("filename,label,split\na,walk,train\nb,,test\n", "'b'"),
        ("filename,label,split\na,walk,train\nb,walk,dev\n", ("'dev'", "train, val, test")),
        ("filename,label,split\na,walk,train\nb,walk,val\n", "'test'"),
        ("filename,label,split\na.mp4,walk,train\na.avi,walk,test\n", ("'a'", "'a.mp4'", "'a.avi'")),
        ("filename,label,split,subject\na,walk,train,x\nb,walk,test,\n", ("1 of 2", "'b'")),
        ("filename,label,split,subject\na,walk,train,x\nb,walk,test,x\n", ("'x'", "train", "test")),
        ("filename,label,split\na,0,train\nb,99999999999,test\n", ("99999999999", "100000")),
    ],
)
def test_what_is_no_such_table(tmp_path, text, names):
    with refused("labels.csv", naming=names):
        table(tmp_path, text)
