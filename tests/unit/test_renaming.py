"""Label and annotation files renamed: what they say afterwards, in which order, and what is refused."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pytest
from refusals import refused

from mgfn import label_list
from mgfn.data.lists import read_list
from splavu import __main__
from splavu.data.csv_table import read_rows
from splavu.data.key_map import KeyMap, hashed_keys, write_key_map
from splavu.data.label_table import read_label_table
from splavu.data.labels import read_attribute_pickle, read_csv_labels, read_json_labels, read_ucf_labels
from splavu.data.name_tables import NAME_RULES, VpName
from splavu.data.splits import casia_name, casia_split, ntu_bias_side, ntu_name, ntu_split
from splavu.release.renaming import Renaming
from splavu.stores import FolderWriter
from tridet.annotations import read_annotations

SECRET = bytes(range(32))


def renaming(keys, **options):
    return Renaming(hashed_keys(list(keys), SECRET), **options)


def released(keys):
    return hashed_keys(list(keys), SECRET).released_of


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_comes_in_the_order_of_the_released_keys(tmp_path):
    keys = [f"clip {n}, {'ü' * (n % 2)}" for n in range(20)]
    table = written(
        tmp_path / "labels.csv", "filename,label\n" + "".join(f'"x/{k}.avi",{n}\n' for n, k in enumerate(keys))
    )
    (tmp_path / "out.csv").write_bytes(renaming(keys).file(table).content)
    assert read_csv_labels(tmp_path / "out.csv") == {released(keys)[key]: n for n, key in enumerate(keys)}
    found = [row["filename"] for row in read_rows(tmp_path / "out.csv")]
    assert found == sorted(found)
    (tmp_path / "out.csv").write_bytes(renaming(keys, keep_order=True).file(table).content)
    assert [row["filename"] for row in read_rows(tmp_path / "out.csv")] == list(released(keys).values())


def test_videos_that_were_dealt_by_their_names_keep_their_side(tmp_path):
    keys = [f"clip{n}" for n in range(60)]
    table = written(tmp_path / "labels.csv", "filename,label\n" + "".join(f"{key}.mp4,run\n" for key in keys))
    dealt = read_label_table(table).split_of
    (tmp_path / "out.csv").write_bytes(renaming(keys).file(table).content)
    found = read_label_table(tmp_path / "out.csv").split_of
    assert found == {released(keys)[key]: split for key, split in dealt.items()}
    named = written(tmp_path / "hmdb51_test_labels.csv", table.read_text())
    assert renaming(keys).file(named).content.startswith(b"filename,label\n")


def test_cells_keep_what_they_say_but_for_names_of_videos(tmp_path):
    cells = ['say "a", b', "two\nlines", "ünï", "1"]
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(f"v{n}.mp4", cell, "x") for n, cell in enumerate(cells)]
        csv.writer(file).writerows([("filename", "note", "path"), *rows])
    keys = [f"v{n}" for n in range(4)]
    (tmp_path / "out.csv").write_bytes(renaming(keys).file(tmp_path / "labels.csv").content)
    found = {row["filename"]: row["note"] for row in read_rows(tmp_path / "out.csv")}
    assert found == {released(keys)[f"v{n}"]: cell for n, cell in enumerate(cells)}
    text = (tmp_path / "labels.csv").read_text(encoding="utf-8").replace("1,x", "1,D:\\\\films\\\\v2.mp4")
    with refused("labels.csv", naming="'path'"):
        renaming(keys).file(written(tmp_path / "labels.csv", text))


def test_a_video_without_a_key_is_refused_or_dropped_never_copied(tmp_path):
    table = written(tmp_path / "table.csv", "filename,label\na.avi,0\nstranger.avi,1\n")
    with refused("table.csv", naming="'stranger.avi'"):
        renaming(["a"]).file(table)
    found = renaming(["a", "b"], drop=True).file(table)
    assert (found.num_renamed, found.num_dropped) == (1, 1)
    assert b"stranger" not in found.content
    with refused("table.csv"):
        renaming(["b"], drop=True).file(table)


def test_a_blank_name_is_no_stranger_to_be_dropped(tmp_path):
    table = written(tmp_path / "table.csv", 'filename,label\na.avi,0\n" ",1\n')
    with refused("table.csv"):
        renaming(["a"], drop=True).file(table)


def test_json_of_labels(tmp_path):
    path = written(tmp_path / "labels.json", json.dumps({"b": 2, "a": 1}))
    (tmp_path / "out.json").write_bytes(renaming("ab").file(path).content)
    assert read_json_labels(tmp_path / "out.json") == {released("ab")["a"]: 0, released("ab")["b"]: 1}
    for content in ({}, {"a": {"gender": 1}}, {"a": [1]}, {"database": []}):
        with refused("labels.json"):
            renaming("ab").file(written(path, json.dumps(content)))


def test_annotations_keep_times_and_labels_and_nothing_else(tmp_path):
    annotation = {"segment": [0.5, 2], "label": "run", "label_id": 1, "annotator": "jane"}
    video = {"subset": "test", "fps": 30, "url": "https://films/a", "annotations": [annotation]}
    content = {"version": "a", "database": {"a": video, "b": {**video, "annotations": []}}, "taxonomy": ["jane"]}
    path = written(tmp_path / "thumos14.json", json.dumps(content))
    found = json.loads(renaming("ab").file(path).content)
    kept = {"segment": [0.5, 2], "label": "run", "label_id": 1}
    assert found["database"][released("ab")["a"]] == {"subset": "test", "fps": 30, "annotations": [kept]}
    assert list(found) == ["database"]
    assert list(found["database"]) == sorted(released("ab").values())
    video["annotations"] = [annotation | {"label": "b.mp4"}]
    with refused("thumos14.json"):
        renaming("ab").file(written(path, json.dumps(content)))


def test_lists_keep_what_follows_the_name_and_only_ucf101s_folder(tmp_path):
    keys = ["v_Run_g01_c01", "v_Run_g02_c01", "a b", "c"]
    lines = [
        "Run/v_Run_g01_c01.avi 7",
        "Run/v_Run_g02_c01.avi 8",
        "x/jane/a b.npy, 1",
        "I3D\\c.npy Abuse 1 2 -1",
    ]
    found = renaming(keys, keep_order=True).file(written(tmp_path / "a.list", "\n".join(lines))).content.decode()
    names = released(keys)
    assert found.splitlines() == [
        f"Run/{names['v_Run_g01_c01']} 7",
        f"Run/{names['v_Run_g02_c01']} 8",
        f"{names['a b']}, 1",
        f"{names['c']} Abuse 1 2 -1",
    ]
    classes = written(tmp_path / "classes.json", json.dumps({"classes": {"Run": 1}}))
    split = written(tmp_path / "split.txt", "\n".join(found.splitlines()[:2]))
    assert read_ucf_labels(split, classes) == {names[key]: 0 for key in keys[:2]}
    for bad in ("c.npy\nx/c.npy\n", "c.npy v_Run_g01_c01\n", "stranger\n", "\n"):
        with refused("a.list"):
            renaming(keys).file(written(tmp_path / "a.list", bad))


@pytest.mark.parametrize(
    ("name", "rules"),
    [("ucf-i3d.list", "UCF"), ("ucf-i3d-test.list", "UCF"), ("xd-i3d-test.list", "XD"), ("shanghai-i3d.list", "ST")],
)
def test_the_real_lists_say_the_same_after_their_names_are_gone(tmp_path, shared, name, rules):
    real = shared / "annotations/vad_lists" / name
    label_list.main([str(real), str(tmp_path / "labelled.list"), "--datasetname", rules])
    entries = read_list(real, rules)
    keys = hashed_keys([entry.name for entry in entries], SECRET, crops=True)
    (tmp_path / "out.list").write_bytes(Renaming(keys).file(tmp_path / "labelled.list").content)
    found = {entry.name: (entry.is_abnormal, entry.classes) for entry in read_list(tmp_path / "out.list", rules)}
    assert found == {keys.videos[entry.name]: (entry.is_abnormal, entry.classes) for entry in entries}
    assert list(found) == sorted(found)


def test_thumos14s_annotations_say_the_same(tmp_path, shared):
    real = read_annotations(shared / "annotations/thumos14.json")
    keys = hashed_keys([video.name for video in real.videos], SECRET)
    (tmp_path / "out.json").write_bytes(Renaming(keys).file(shared / "annotations/thumos14.json").content)
    found = {video.name: video for video in read_annotations(tmp_path / "out.json").videos}
    for video in real.videos:
        renamed = found[keys.released_of[video.name]]
        assert (renamed.subset, renamed.fps, renamed.duration) == (video.subset, video.fps, video.duration)
        np.testing.assert_array_equal(renamed.segments, video.segments)
        np.testing.assert_array_equal(renamed.labels, video.labels)


def test_visprs_pickle(tmp_path):
    labels = {f"2017_{n}": np.arange(7) % 2 for n in range(3)}
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps(labels))
    keys = [f"2017_{n}.jpg" for n in range(3)]
    (tmp_path / "out.pkl").write_bytes(renaming(keys).file(tmp_path / "labels.pkl").content)
    found = read_attribute_pickle(tmp_path / "out.pkl")
    assert set(found) == set(released(keys).values())
    assert all((vector == np.arange(7) % 2).all() for vector in found.values())
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps(object))
    with refused("labels.pkl"):
        renaming(keys).file(tmp_path / "labels.pkl")


@pytest.mark.parametrize("crops", [False, True])
def test_ground_truth_follows_its_videos(tmp_path, crops):
    rng, lengths = np.random.default_rng(0), {"a": 3, "b": 1, "c": 2}
    names = [f"{name}__{crop}" for name in lengths for crop in (0, 1)] if crops else list(lengths)
    folder = FolderWriter(tmp_path / "features", attributes={"encoder": "demo"})
    for name in names:
        folder.add(name, rng.normal(size=(lengths[name[0]], 4)).astype(np.float32))
    keys = hashed_keys(names, SECRET, crops=True)
    truths = {name: rng.integers(0, 2, 16 * length) for name, length in lengths.items()}
    np.save(tmp_path / "gt.npy", np.concatenate(list(truths.values())))
    test_list = written(tmp_path / "test.list", "x/a.npy 1\nx/b.npy 0\nx/c.npy 1\n")
    made = Renaming(keys)
    options = {"test_list": test_list, "features": tmp_path / "features", "frames": 16}
    (tmp_path / "out.npy").write_bytes(made.truth(tmp_path / "gt.npy", **options).content)
    order = [line.split()[0] for line in made.file(test_list).content.decode().splitlines()]
    name_of = {released: raw for raw, released in keys.videos.items()}
    assert set(map(name_of.get, order)) == set("abc")
    expected = np.concatenate([truths[name_of[key]] for key in order])
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    with refused("gt.npy"):
        made.truth(tmp_path / "gt.npy", **options | {"frames": 8})
    with refused("test.list"):
        Renaming(KeyMap({"a": keys.videos["a"]}), drop=True).truth(tmp_path / "gt.npy", **options)


def test_what_is_no_label_file_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "gt.npy", np.zeros(3))
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\0")
    for name in ("folder", "gt.npy", "bytes.csv", "absent.csv"):
        with refused(name):
            renaming("ab").file(tmp_path / name)


NTU = [
    f"S{setup:03d}C{camera:03d}P{subject:03d}R001A{action:03d}_rgb"
    for subject in range(1, 41)
    for setup in (1, 2)
    for camera in (1, 2)
    for action in (1, 2, 4)
]
GENDERS = {f"P{n:03d}": "female" if n % 2 else "male" for n in range(1, 41)}


def test_the_table_of_ntus_names_makes_the_same_splits(tmp_path):
    keys, path = hashed_keys(NTU, SECRET), tmp_path / "ntu_names.csv"
    path.write_bytes(Renaming(keys, keep_order=True).names("ntu").content)
    said = NAME_RULES["ntu"].read(keys.raw_of, path)
    for raw, key in keys.released_of.items():
        name = ntu_name(raw)
        assert (said[key].subject, said[key].action, said[key].camera) == (name.subject, name.action, name.camera)
    for side in ("train", "test"):
        assert getattr(ntu_split(said, said), side) == tuple(
            keys.released_of[name] for name in getattr(ntu_split(sorted(NTU)), side)
        )
        for variant in ("ntu_bias_f", "ntu_balanced"):
            expected = ntu_bias_side(variant, sorted(NTU), GENDERS, side)
            found = ntu_bias_side(variant, said, GENDERS, side, said=said)
            assert found == tuple(keys.released_of[name] for name in expected)
    path.write_bytes(Renaming(keys).names("ntu").content)
    rows = [row["filename"] for row in read_rows(path)]
    assert rows == sorted(keys.raw_of)
    assert set(ntu_split(said, said).test) == set(ntu_split(said, NAME_RULES["ntu"].read(keys.raw_of, path)).test)


def test_names_are_read_where_the_table_has_no_row(tmp_path):
    names = ["001-nm-01-090", "002-cl-02-000"]
    assert NAME_RULES["casia_b"].read(names, tmp_path / "absent.csv") == {name: casia_name(name) for name in names}
    keys, path = hashed_keys(names[:1], SECRET), tmp_path / "casia_b_names.csv"
    path.write_bytes(Renaming(keys).names("casia_b").content)
    mixed = [*keys.raw_of, names[1]]
    said = NAME_RULES["casia_b"].read(mixed, path)
    assert list(said.values()) == [casia_name(name) for name in names]
    assert casia_split(said, said).probe == (names[1],)
    with refused("stranger"):
        NAME_RULES["casia_b"].read(["stranger"], path)
    table = path.read_text()
    for old, new, culprit in ((",nm,", ",zz,", path), (",90", ",ninety", path), (",90", ",999", "001-nm-01-999")):
        with refused(culprit):
            NAME_RULES["casia_b"].read(keys.raw_of, written(path, table.replace(old, new)))


def test_films_are_numbered_since_their_titles_are_parts_of_names(tmp_path):
    names = ["kick/Jane_kick_0.avi", "kick/Jane_kick_1.avi", "run/Joe_run_0.avi"]
    keys, path = hashed_keys(names, SECRET), tmp_path / "vp_hmdb_names.csv"
    path.write_bytes(Renaming(keys).names("vp_hmdb").content)
    assert "Jane" not in path.read_text()
    said = {raw: NAME_RULES["vp_hmdb"].read(keys.raw_of, path)[key] for raw, key in keys.released_of.items()}
    assert said[names[0]] == said[names[1]] != said[names[2]]
    assert said[names[2]] == VpName("run", said[names[2]].film)


def test_the_command(tmp_path, capsys):
    write_key_map(tmp_path / "a.keys.csv", hashed_keys(["a"], SECRET))
    write_key_map(tmp_path / "b.keys.csv", hashed_keys(["b"], SECRET))
    table = written(tmp_path / "table.csv", "filename,label\na,0\nb,1\nc,1\n")
    maps = ["--keys", str(tmp_path / "a.keys.csv"), "--keys", str(tmp_path / "b.keys.csv")]
    command, out = ["rename-keys", *maps, str(table)], str(tmp_path / "out.csv")
    with refused("table.csv"):
        __main__.main([*command, out])
    assert not (tmp_path / "out.csv").exists()
    assert __main__.main([*command, out, "--drop"]) == 0
    assert "2 videos" in capsys.readouterr().out
    for files, culprit in (
        ([out], "OUT"),
        ([table, table, out], "OUT"),
        ([table, table], "table.csv"),
        ([table, tmp_path / "a.keys.csv"], "a.keys.csv"),
    ):
        with refused(culprit):
            __main__.main(["rename-keys", *maps, *map(str, files), "--drop"])
    with refused("--list"):
        __main__.main([*command, out, "--list", str(table)])
