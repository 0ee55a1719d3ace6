import pickle

import numpy as np
import pytest
from refusals import refused

from splavu.data import labels


def test_csv_labels_drop_extension_and_base(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("filename,label\nwave_p1_np1.avi,3\na.b_#1.avi,1\nshow.S01.E05,2\nwalk_1.25.MP4,1\n")
    assert labels.read_csv_labels(path, base=1) == {"wave_p1_np1": 2, "a.b_#1": 0, "show.S01.E05": 1, "walk_1.25": 0}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name,label\na.avi,1\n", "'filename'"),
        ("filename,label\n", ()),
        ("filename,label\na.avi,x\n", ("'a.avi'", "'x'")),
        ("filename,label\na.avi,-1\n", "-1"),
        ("filename,label\na.avi,1\na.avi,2\n", "'a.avi'"),
        ("filename,label\nx/a.avi,1\ny/a.mp4,2\n", ("'a'", "'x/a.avi'", "'y/a.mp4'")),
        ("filename,label,label\na.avi,1,2\n", "'label'"),
        ("filename,label\na.avi,51\n", "51"),
        ("filename,label\na.avi,1.5\n", ("'a.avi'", "'1.5'")),
        ("filename,label\na.avi,inf\n", ("'a.avi'", "'inf'")),
        ("filename,label\na.avi\n", ("row 1", "'a.avi'", "2")),
        ("filename,label\na.avi,1,2\n", ("row 1", "'a.avi'", "2")),
    ],
)
def test_bad_csv_is_named(tmp_path, text, names):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with refused("labels.csv", naming=names):
        labels.read_csv_labels(path, num_classes=51)


@pytest.mark.parametrize(
    "label",
    ["[0. 1. 0. 1.]", "[0. 1. 0. 1. 1. 1.]", "[0. 1. 0. 2. 1.]", "[0. 1. 0. nan 1.]", "[0. 1. zero 1. 1.]", ""],
)
def test_bad_attribute_text_is_named(tmp_path, label):
    path = tmp_path / "vp.csv"
    path.write_text(f'filename,label\na.avi,"{label}"\n')
    with refused("vp.csv", naming=("'a.avi'", "5")):
        labels.read_vector_csv(path)


def test_repeated_keys_are_refused(tmp_path):
    (tmp_path / "k.json").write_text('{"v1": 1, "v2": 2, "v1": 3}')
    with refused("k.json"):
        labels.read_json_labels(tmp_path / "k.json")
    (tmp_path / "classes.json").write_text('{"classes": {"Archery": 3}}')
    (tmp_path / "list.txt").write_text("Archery/v_g01.avi 3\nArchery/v_g01.avi 3\n")
    with refused("list.txt"):
        labels.read_ucf_labels(tmp_path / "list.txt", tmp_path / "classes.json")


def test_json_of_another_shape_is_named(tmp_path):
    (tmp_path / "k.json").write_text('["v1"]')
    with refused("k.json"):
        labels.read_json_labels(tmp_path / "k.json")
    (tmp_path / "classes.json").write_text('{"Archery": 3}')
    (tmp_path / "list.txt").write_text("Archery/v_g01.avi 3\n")
    with refused("classes.json"):
        labels.read_ucf_labels(tmp_path / "list.txt", tmp_path / "classes.json")


def test_kinetics_and_ucf_count_from_one(tmp_path):
    (tmp_path / "k.json").write_text('{"v1": 1, "v2": 400}')
    assert labels.read_json_labels(tmp_path / "k.json") == {"v1": 0, "v2": 399}
    (tmp_path / "classes.json").write_text('{"classes": {"Archery": 3}}')
    (tmp_path / "list.txt").write_text("Archery/v_Archery_g01_c01.avi 3\n\n")
    found = labels.read_ucf_labels(tmp_path / "list.txt", tmp_path / "classes.json")
    assert found == {"v_Archery_g01_c01": 2}
    (tmp_path / "list.txt").write_text("Bowling/v.avi 1\n")
    with refused("list.txt"):
        labels.read_ucf_labels(tmp_path / "list.txt", tmp_path / "classes.json")


def test_attribute_pickle_round_trip_and_real_counts(tmp_path, shared):
    found = labels.read_attribute_pickle(shared / "annotations/vispr_labels/train_labels.pkl")
    assert len(found) == 10_000
    positives = np.stack(list(found.values())).sum(axis=0)
    assert positives.tolist() == [4710, 4625, 3484, 2789, 588, 334, 694]  # annotations/README.md
    tested = labels.read_attribute_pickle(shared / "annotations/vispr_labels/test_labels.pkl")
    assert len(tested) == 8_000
    assert not tested.keys() & found.keys()
    vectors = np.stack(list(tested.values()))
    assert vectors.sum(axis=0).tolist() == [3781, 3715, 2792, 2326, 438, 253, 569]
    assert (vectors.sum(axis=1) == 0).sum() == 4112


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_attribute_pickle_with_code_is_refused_unrun(tmp_path, capsys):
    path = tmp_path / "labels.pkl"
    path.write_bytes(pickle.dumps({"a": np.zeros(7)}, protocol=4))
    assert labels.read_attribute_pickle(path)["a"].tolist() == [0.0] * 7
    path.write_bytes(pickle.dumps({"a": Payload()}))
    with refused("labels.pkl"):
        labels.read_attribute_pickle(path)
    assert "code ran" not in capsys.readouterr().out
    path.write_bytes(pickle.dumps({"a": np.zeros(6)}))
    with refused("labels.pkl"):
        labels.read_attribute_pickle(path)
    path.write_bytes(b"no pickle")
    with refused("labels.pkl"):
        labels.read_attribute_pickle(path)


def test_vector_csv_and_names(tmp_path):
    (tmp_path / "vp.csv").write_text('filename,label\nwave/a.avi,"[0. 1. 0. 1. 1.]"\n')
    assert labels.read_vector_csv(tmp_path / "vp.csv")["wave/a.avi"].tolist() == [0, 1, 0, 1, 1]
    name = "S001C002P003R002A013_rgb"
    assert labels.read_ntu_actions([name]) == {name: 12}
    with refused("clip7"):
        labels.read_ntu_actions(["clip7"])


def test_missing_and_binary_files(tmp_path):
    with refused("absent.csv"):
        labels.read_csv_labels(tmp_path / "absent.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x81")
    with refused("b.csv"):
        labels.read_csv_labels(tmp_path / "b.csv")
    (tmp_path / "b.json").write_text("{")
    with refused("b.json"):
        labels.read_json_labels(tmp_path / "b.json")
