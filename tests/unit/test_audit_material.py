"""What an audit reads: stores and tables joined, people apart, everything left out named."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from refusals import refused

from splavu.audit.inputs import NAMES_IGNORED, read_inputs
from splavu.data.key_map import hashed_keys
from splavu.data.private_labels import read_private_table
from splavu.stores import StoreWriter, open_features

PEOPLE = 12


def write_table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(**columns):
    """Two videos a person; gender is the person's, glasses are the video's, a hat is there or unknown."""
    table = []
    for person in range(PEOPLE):
        for video in range(2):
            row = {"filename": f"p{person:02d}_{video}.avi", "subject": f"p{person:02d}", "gender": person % 2}
            row |= {"glasses": video, "hat": "" if video else (person // 2) % 2, "label": video, "frames": 40}
            table.append(row | {name: value(person, video) for name, value in columns.items()})
    return table


def write_store(path, *, clips=3, width=4, seed=0, change=lambda key, features: features):
    rng = np.random.default_rng(seed)
    with StoreWriter(path, attributes={"encoder": "demo"}) as store:
        for row in rows():
            key = row["filename"].removesuffix(".avi")
            store.add(key, change(key, rng.normal(size=(clips, width)).astype(np.float32)))
    return path


def write_folder(path, poisoned):
    """A folder of .npy, one of them with a value that is not finite (StoreWriter writes no such thing)."""
    path.mkdir()
    for row in rows():
        key = row["filename"].removesuffix(".avi")
        np.save(path / f"{key}.npy", np.full((3, 4), np.inf if key == poisoned else 0, np.float32))
    return path


@pytest.fixture
def labels(tmp_path):
    return write_table(tmp_path / "labels.csv", rows())


def test_columns_of_0_and_1_are_attributes_and_blanks_are_unknown(labels):
    table = read_private_table(labels)
    assert table.attributes == ("gender", "glasses", "hat")  # label is the task's, frames are no 0 and 1
    known = table.of(["p02_0", "p02_1"])
    np.testing.assert_array_equal(known.values["p02_0"], [0, 0, 1])
    np.testing.assert_array_equal(known.values["p02_1"], [0, 1, np.nan])
    assert known.subjects["p02_1"] == "p02"
    assert not known.splits


def test_people_are_dealt_apart_and_the_same_way_each_time(labels, tmp_path):
    store = write_store(tmp_path / "s.h5")
    found = [read_inputs([store], read_private_table(labels)) for _ in range(2)]
    people = {name: set(part.clusters) for name, part in found[0].released.splits.items()}
    assert sum(map(len, people.values())) == len(set().union(*people.values())) == PEOPLE
    assert min(map(len, people.values())) >= 2
    for first, again in zip(found[0].released.splits.values(), found[1].released.splits.values(), strict=True):
        np.testing.assert_array_equal(first.videos, again.videos)


def test_only_what_no_person_has_both_ways_is_personal(labels, tmp_path):
    found = read_inputs([write_store(tmp_path / "s.h5")], read_private_table(labels))
    assert found.personal.tolist() == [True, False, True]


def test_a_column_split_is_kept_and_some_training_people_validate(tmp_path):
    split = {0: "train", 1: "train", 2: "test"}
    labels = write_table(tmp_path / "labels.csv", rows(split=lambda person, video: split[person // 4]))
    found = read_inputs([write_store(tmp_path / "s.h5")], read_private_table(labels))
    assert set(found.released.test.clusters) == {f"p{p:02d}" for p in range(8, 12)}
    assert len(set(found.released.validation.clusters)) == 2  # a fifth of eight


def test_raw_rows_stand_beside_their_released_ones(labels, tmp_path):
    raw = write_store(tmp_path / "raw.h5", seed=1)
    released = write_store(tmp_path / "released.h5", seed=1, change=lambda key, features: 2 * features)
    found = read_inputs([released], read_private_table(labels), raw=[raw])
    for name, part in found.raw.splits.items():
        np.testing.assert_array_equal(2 * part.features, found.released.splits[name].features)
    assert [(file.role, file.name) for file in found.files] == [
        ("released", "released.h5"),
        ("raw", "raw.h5"),
        ("labels", "labels.csv"),
    ]


def test_long_videos_are_thinned_evenly_and_alike(labels, tmp_path):
    def counted(key, features):
        return np.arange(len(features), dtype=np.float32)[:, None] + np.zeros(4, np.float32)

    stores = [write_store(tmp_path / f"{name}.h5", clips=10, change=counted) for name in ("raw", "released")]
    found = read_inputs([stores[1]], read_private_table(labels), raw=[stores[0]], max_clips=5)
    assert found.released.test.features[:5, 0].tolist() == found.raw.test.features[:5, 0].tolist() == [0, 2, 4, 6, 8]
    assert "24 videos have more than 5 clips" in found.warnings[0]


def test_what_has_no_label_is_left_out_and_counted(tmp_path):
    labels = write_table(tmp_path / "labels.csv", rows()[:-2])
    found = read_inputs([write_store(tmp_path / "s.h5")], read_private_table(labels))
    assert "2 of 24 released keys have no label" in found.warnings[0]
    assert sum(len(part) for part in found.released.splits.values()) == 22 * 3


def test_what_is_labelled_and_not_released_is_counted(tmp_path, caplog):
    """The names are in the log only: evidence may be published, and these videos aren't."""
    more = {**rows()[0], "filename": "p00_9.avi"}
    table = read_private_table(
        write_table(tmp_path / "labels.csv", [*rows(action=lambda p, v: v), more | {"action": 0}])
    )
    with caplog.at_level("WARNING"):
        warnings = read_inputs([write_store(tmp_path / "s.h5")], table).warnings
    assert "1 of 25 labelled videos" in warnings[0]
    assert "'action'" in warnings[1]
    assert "p00_9" not in " ".join(warnings)
    assert "'p00_9.avi'" in caplog.text


def test_too_few_subjects_are_refused_with_advice_that_applies(tmp_path):
    store = write_store(tmp_path / "s.h5")
    labels = write_table(tmp_path / "labels.csv", rows(subject=lambda person, video: f"p{person % 4}"))
    with refused("labels.csv", naming="4 subjects") as caught:
        read_inputs([store], read_private_table(labels))
    assert "leave out" not in caught.value.remedy
    labels = write_table(tmp_path / "labels.csv", rows(split=lambda person, video: "train" if person else "test"))
    with refused("labels.csv", naming="leave out the column split"):
        read_inputs([store], read_private_table(labels))


def test_bad_stores_are_refused(labels, tmp_path):
    table = read_private_table(labels)
    good = write_store(tmp_path / "good.h5")
    longer = write_store(tmp_path / "longer.h5", clips=4)
    with refused("--raw"):
        read_inputs([good], table, raw=[longer])
    with refused("longer.h5"):
        read_inputs([good, longer], table)
    with refused("folder"):
        read_inputs([write_folder(tmp_path / "folder", "p03_1")], table)


def test_attributes_of_one_class_are_named(tmp_path):
    labels = write_table(tmp_path / "labels.csv", rows(beard=lambda person, video: 0))
    found = read_inputs([write_store(tmp_path / "s.h5")], read_private_table(labels))
    assert any("'beard' is not judged" in warning for warning in found.warnings)
    only = read_private_table(labels, attributes=["beard"])
    with refused("labels.csv"):
        read_inputs([tmp_path / "s.h5"], only)


def test_raw_and_released_keys_meet_though_one_has_an_extension(labels, tmp_path):
    released = write_store(tmp_path / "released.h5")
    raw = tmp_path / "raw.h5"
    with StoreWriter(raw, attributes={"encoder": "demo"}) as store:
        for row in rows():
            store.add(row["filename"], np.zeros((3, 4), np.float32))
    found = read_inputs([released], read_private_table(labels), raw=[raw])
    assert set(found.raw.test.videos) == set(found.released.test.videos)


def test_a_table_without_subjects_or_binary_columns_is_refused(labels, tmp_path):
    store = write_store(tmp_path / "s.h5")
    without = [{name: cell for name, cell in row.items() if name != "subject"} for row in rows()]
    lacking = write_table(tmp_path / "lacking.csv", without)
    with refused("lacking.csv"):
        read_inputs([store], read_private_table(lacking))
    with refused("labels.csv"):
        read_inputs([store], read_private_table(labels, attributes="frames"))


def test_what_each_column_was_read_as_is_kept(labels, tmp_path):
    found = read_inputs([write_store(tmp_path / "s.h5")], read_private_table(labels))
    kinds = {column["name"]: column["kind"] for column in found.columns}
    assert kinds == {"gender": "binary", "glasses": "binary", "hat": "binary", "frames": "class"}


def test_a_release_under_secret_keys_is_read_by_the_owners_map(tmp_path, labels):
    raw = write_store(tmp_path / "raw.h5")
    features = dict(open_features(raw))
    keys = hashed_keys(list(features), bytes(32))
    with StoreWriter(tmp_path / "released.h5", attributes={"encoder": "demo"}) as store:
        for key, rows_of_key in features.items():
            store.add(keys.released_of[key], 2 * rows_of_key)
    table, released = read_private_table(labels), [tmp_path / "released.h5"]
    found = read_inputs(released, table, raw=[raw], key_map=keys)
    for name, rows_of_split in found.released.splits.items():
        assert set(rows_of_split.videos) <= set(features)
        np.testing.assert_array_equal(rows_of_split.features, 2 * found.raw.splits[name].features)
    assert {video: key.name for video, key in found.keys.items()} == keys.released_of
    with refused(labels):  # no map: no released key has a label
        read_inputs(released, table)
    with refused("the map of keys"):
        read_inputs([raw], table, key_map=keys)


def test_names_are_handed_to_attackers_unless_they_are_to_be_ignored_which_is_said(tmp_path, labels):
    raw, table = write_store(tmp_path / "raw.h5"), read_private_table(labels)
    found, features_alone = (read_inputs([raw], table, read_names=read_names) for read_names in (True, False))
    assert set(found.keys) == set(open_features(raw))
    assert not features_alone.keys
    assert NAMES_IGNORED not in found.warnings
    assert NAMES_IGNORED in features_alone.warnings
