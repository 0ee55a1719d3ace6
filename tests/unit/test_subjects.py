"""Subjects and genders: the real files with the counts in their README, and made-up ones with every fault."""

from __future__ import annotations

import pytest
from refusals import refused

from splavu.data import subjects


def test_real_ntu_genders(shared):
    genders = subjects.read_ntu_genders(shared / "annotations/ntu_subject_gender_labels.json")
    assert genders.keys() == {f"P{number:03d}" for number in range(1, 107)}
    assert list(genders.values()).count("male") == 73
    assert (genders["P001"], genders["P003"], genders["P106"]) == ("female", "male", "male")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('{"male": ["P001"]}', "'female'"),
        ('{"male": ["P001"], "female": "P002"}', "'female'"),
        ('{"male": ["P001"], "female": ["P002"], "femal": []}', ("'femal'", "'female'")),
        ('{"male": ["P001"], "female": ["P1"]}', "'P1'"),
        ('{"male": ["P001"], "female": [2]}', "2"),
        ('{"male": ["P001"], "female": ["P001"]}', "'P001'"),
        ('{"male": ["P001"], "male": ["P002"], "female": []}', "'male'"),
        ("[]", "list"),
    ],
)
def test_bad_ntu_genders_are_named(tmp_path, text, names):
    path = tmp_path / "genders.json"
    path.write_text(text)
    with refused("genders.json", naming=names):
        subjects.read_ntu_genders(path)


HEADER = "filename,subject,gender,split,label\n"


def test_smarthome_rows(tmp_path):
    path = tmp_path / "tsh_labels.csv"
    path.write_text(f"{HEADER}Cook.Cut_p03_r01_v02_c03.mp4,3,male,train,1\nWalk_p02_r01_v02_c03.mp4,2,Female,test,31\n")
    assert subjects.read_smarthome(path) == {
        "Cook.Cut_p03_r01_v02_c03": subjects.SmarthomeVideo("3", "male", "train", 0),
        "Walk_p02_r01_v02_c03": subjects.SmarthomeVideo("2", "female", "test", 30),
    }


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ("a.mp4,3,male,train,0\n", ("'a'", "label 0")),
        ("a.mp4,3,male,train,32\n", ("'a'", "label 32", "31")),
        ("a.mp4,3,male,training,1\n", ("'a'", "'training'")),
        ("a.mp4,3,x,train,1\n", ("'a'", "'x'")),
        ("a.mp4,3,male,train,1\na.mp4,3,male,train,1\n", "'a.mp4'"),
        ("a.mp4,3,male,train,1\nb.mp4,3,male,test,1\n", ("'3'", "train", "test")),
        ("a.mp4,3,male,train,1\nb.mp4,3,female,train,1\n", ("'3'", "male", "female")),
        ("a.mp4,,male,train,1\n", ("1 of 1", "'a.mp4'")),
        ("a.mp4,3,male,train\n", ("row 1", "'a.mp4'", "5")),
    ],
)
def test_bad_smarthome_rows_are_named(tmp_path, rows, names):
    path = tmp_path / "tsh_labels.csv"
    path.write_text(HEADER + rows)
    with refused("tsh_labels.csv", naming=names):
        subjects.read_smarthome(path)


def test_smarthome_without_a_column_is_refused(tmp_path):
    path = tmp_path / "tsh_labels.csv"
    path.write_text("filename,subject,split,label\na.mp4,3,train,1\n")
    with refused("tsh_labels.csv", naming="'gender'"):
        subjects.read_smarthome(path)


# Tables of one's own.


def test_subjects_of_a_table_by_key(tmp_path):
    path = tmp_path / "subjects.csv"
    path.write_text("filename,split,subject,age\na.mp4,train,Ann,3\nb/c.avi,test,Bob,4\nd.mp4,validation,Cem,5\n")
    found = subjects.read_subjects(path, ["a", "c", "e"])
    assert found.subjects == {"a": "Ann", "c": "Bob"}
    assert found.splits == {"a": "train", "c": "test"}
    path.write_text("filename,subject\na.mp4,Ann\n")
    assert subjects.read_subjects(path, ["a"]).splits == {}


@pytest.mark.parametrize(
    "text",
    [
        "filename,who\na,Ann\n",
        "filename,subject\na,\n",
        "filename,subject\na,Ann\na,Bob\n",
        "filename,subject,split\na,Ann,train\nb,Ann,test\n",
        "filename,subject,split\na,Ann,later\n",
    ],
)
def test_bad_tables_of_subjects_are_named(tmp_path, text):
    path = tmp_path / "subjects.csv"
    path.write_text(text)
    with refused("subjects.csv"):
        subjects.read_subjects(path, ["a", "b"])
