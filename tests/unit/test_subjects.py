"""Subjects and genders: the real files with the counts in their README, and made-up ones with every fault."""

from __future__ import annotations

import pytest

from splavu.data import subjects
from splavu.errors import UserError


def test_real_ntu_genders(shared):
    genders = subjects.read_ntu_genders(shared / "annotations/ntu_subject_gender_labels.json")
    assert genders.keys() == {f"P{number:03d}" for number in range(1, 107)}
    assert list(genders.values()).count("male") == 73
    assert (genders["P001"], genders["P003"], genders["P106"]) == ("female", "male", "male")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"male": ["P001"]}', "has no list 'female'"),
        ('{"male": ["P001"], "female": "P002"}', "has no list 'female'"),
        ('{"male": ["P001"], "female": ["P002"], "femal": []}', "'femal' is no gender of this file; did you mean"),
        ('{"male": ["P001"], "female": ["P1"]}', "'P1' is no subject"),
        ('{"male": ["P001"], "female": [2]}', "2 is no subject"),
        ('{"male": ["P001"], "female": ["P001"]}', "duplicate subject 'P001'"),
        ('{"male": ["P001"], "male": ["P002"], "female": []}', "duplicate key 'male'"),
        ("[]", "holds a list"),
    ],
)
def test_bad_ntu_genders_are_named(tmp_path, text, message):
    path = tmp_path / "genders.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
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
    ("rows", "message"),
    [
        ("a.mp4,3,male,train,0\n", "this file counts from 1"),
        ("a.mp4,3,male,train,32\n", "there are 31 classes counted from 1"),
        ("a.mp4,3,male,training,1\n", "'a' is in split 'training'"),
        ("a.mp4,3,x,train,1\n", "'a' has gender 'x'"),
        ("a.mp4,3,male,train,1\na.mp4,3,male,train,1\n", "duplicate key"),
        ("a.mp4,3,male,train,1\nb.mp4,3,male,test,1\n", "subject '3' has split train and test"),
        ("a.mp4,3,male,train,1\nb.mp4,3,female,train,1\n", "subject '3' has gender male and female"),
        ("a.mp4,,male,train,1\n", "1 of 1 rows have no subject"),
        ("a.mp4,3,male,train\n", "has not the header's 5 cells"),
    ],
)
def test_bad_smarthome_rows_are_named(tmp_path, rows, message):
    path = tmp_path / "tsh_labels.csv"
    path.write_text(HEADER + rows)
    with pytest.raises(UserError, match=message):
        subjects.read_smarthome(path)
    path.write_text("filename,subject,split,label\na.mp4,3,train,1\n")
    with pytest.raises(UserError, match="not 'gender'"):
        subjects.read_smarthome(path)
