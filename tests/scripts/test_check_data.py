"""check-data tells what is there of each data set, what is missing and where it belongs."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from dataset_layouts import LAYOUTS, MADE, write_csv, write_plain
from refusals import refused

from splavu.data.pahmdb51 import PAHMDB51_VALUES
from splavu.stores import FolderWriter, StoreWriter
from study.__main__ import main as study_command
from study.datasets.catalog import CATALOGUE, STORED
from study.datasets.untrimmed import ANNOTATED, UNTRIMMED


@pytest.fixture
def look(tmp_path, capsys):
    """Run the command below `tmp_path`: (exit code, what it printed)."""

    def run(*args, encoder="demo"):
        roots = ["--data", str(tmp_path / "data"), "--features", str(tmp_path / "features"), "--quiet"]
        code = study_command(["check-data", *args, *roots, *(("--encoder", encoder) if encoder else ())])
        return code, capsys.readouterr().out

    return run


def add_videos(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def labelled_files(root):
    """Names in hmdb51's made-up label files, by split."""
    files = {}
    for split in ("train", "val", "test"):
        with (root / f"data/hmdb51/hmdb51_{split}_labels.csv").open(newline="") as file:
            files[split] = [row["filename"] for row in csv.DictReader(file)]
    return files


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_row_says_how_it_lies_on_disk_and_is_found_whole(name, tmp_path, look):
    spec = CATALOGUE[name]
    LAYOUTS[name](tmp_path, spec)
    code, told = look(name)
    assert code == 0, told
    assert f"{name} (" in told
    assert "1 of 1 usable" in told
    if name in ("hmdb51", "vispr"):
        assert "as published: " + {"hmdb51": "short_side 224", "vispr": "mean (0.0, 0.0, 0.0), std"}[name] in told
    for split, count in spec.layout.num_videos.items():
        assert f"official {count}" in told or f"official: {count}" in told, split


def test_every_name_of_the_study_is_looked_for_and_missing_files_are_named(tmp_path, look):
    code, told = look(encoder=None)
    assert code == 1
    for name in (*STORED, *UNTRIMMED, *ANNOTATED):
        assert f"{name} (" in told
    for path in (
        "k400/k400_test_labels.json",
        "hmdb51/hmdb51_train_labels.csv",
        "ucf101/ucfTrainTestlist/testlist01.txt",
        "ntu/ntu_subject_gender_labels.json",
        "tsh/tsh_labels.csv",
        "vispr/train_labels.pkl",
        "vispr/train2017",
        "casia_b/videos",
        "vp/vpucf101_labels_num.csv",
        "thumos14/thumos14.json",
        "ucf_crime/gt-ucf.npy",
        "xd_violence/xd-i3d-test.list",
        "shanghaitech/shanghai-i3d.list",
        "pa_hmdb51/PrivacyAttributes",
    ):
        assert f": {tmp_path / 'data' / path}\n" in told, path


def test_videos_without_stores_are_enough_unless_an_encoder_is_asked_for(tmp_path, look):
    write_plain(tmp_path, CATALOGUE["hmdb51"])
    shutil.rmtree(tmp_path / "features")
    files = labelled_files(tmp_path)
    videos = tmp_path / "data/hmdb51/videos"
    add_videos(videos / "any", [name for of_split in files.values() for name in of_split])
    code, told = look("hmdb51", encoder=None)
    assert code == 0, told
    assert f"test: {len(files['test'])} of {len(files['test'])} files below {videos}" in told
    code, told = look("hmdb51")
    assert code == 1
    assert f"missing: features: {tmp_path / 'features/features_hmdb_train_demo.h5'}" in told
    (videos / "any" / files["test"][0]).unlink()
    code, told = look("hmdb51", encoder=None)
    assert code == 1
    assert f"missing: 1 files of test below {videos}: {files['test'][0].removesuffix('.avi')}\n" in told


def test_stores_that_do_not_match_the_labels(tmp_path, look):
    write_plain(tmp_path, CATALOGUE["hmdb51"])
    labels = tmp_path / "data/hmdb51/hmdb51_test_labels.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[:-1], "nobody.avi,1"]))
    code, told = look("hmdb51")
    store = tmp_path / "features/features_hmdb_test_demo.h5"
    assert code == 1
    assert f"{store}: no features of 1 videos of test: nobody\n" in told
    assert f"{store}: 1 keys have no label: {lines[-1].split(',')[0].removesuffix('.avi')}\n" in told
    store.write_bytes(store.read_bytes()[:-100])
    assert f"{store}: not a complete HDF5 file" in look("hmdb51")[1]
    store.unlink()
    assert f"missing: features: {store}\n" in look("hmdb51")[1]


def test_a_broken_label_file_is_one_line(tmp_path, look):
    write_plain(tmp_path, CATALOGUE["hmdb51"])
    (tmp_path / "data/hmdb51/hmdb51_test_labels.csv").write_text("filename,label\na.avi,x\n")
    code, told = look("hmdb51")
    assert code == 1
    assert told.count("hmdb51_test_labels.csv: 'a.avi' has label 'x', expected a whole number") == 1


def test_stores_of_two_weights_under_one_tag_are_named(tmp_path, look):
    write_plain(tmp_path, CATALOGUE["hmdb51"])
    names = [name.removesuffix(".avi") for name in labelled_files(tmp_path)["train"]]
    static = tmp_path / "features/features_hmdb_train_demo_fb10.h5"
    with StoreWriter(static, attributes=MADE | {"weights_sha256": "xyz"}) as writer:
        for name in names:
            writer.add(name, np.ones((10, 192)))
    code, told = look("hmdb51")
    assert code == 1
    assert f"{static}: made with another weights_sha256 than" in told
    with StoreWriter(static, attributes={"encoder": "i3d"}, resume=False) as writer:
        writer.add(names[0], np.ones((10, 192)))
    assert f"{static}: its name says demo, its attributes say i3d" in look("hmdb51")[1]
    with StoreWriter(static, attributes=MADE, resume=False) as writer:
        for name in names[1:]:
            writer.add(name, np.ones((10, 192)))
    code, told = look("hmdb51")
    assert code == 1
    assert f"{static}: no static clips of 1 videos: {names[0]}\n" in told


def test_long_videos(tmp_path, look):
    folder = tmp_path / "data/ucf_crime"
    folder.mkdir(parents=True)
    (folder / "ucf-i3d.list").write_text("f/Fighting001_x264.npy\nf/Normal_Videos001_x264.npy\n")
    (folder / "ucf-i3d-test.list").write_text("f/Normal_Videos_003_x264.npy\n")
    np.save(folder / "gt-ucf.npy", np.zeros(32))
    writer = FolderWriter(tmp_path / "features/ucf_crime_demo", attributes=MADE)
    for name in ("Fighting001_x264", "Normal_Videos001_x264"):
        writer.add(name, np.ones((2, 192)))
    code, told = look("ucf_crime")
    assert code == 1
    assert "ucf_crime_demo: no features of 1 videos of test: Normal_Videos_003_x264" in told
    writer.add("Normal_Videos_003_x264", np.ones((2, 192)))
    code, told = look("ucf_crime")
    assert code == 0, told
    assert "train: 2 labelled, official 1610" in told


def test_annotations_of_anothers_videos(tmp_path, look):
    write_plain(tmp_path, CATALOGUE["hmdb51"])
    folder = tmp_path / "data/pa_hmdb51/PrivacyAttributes"
    code, told = look("pa_hmdb51")
    assert code == 1
    assert next(line for line in told.splitlines() if "missing" in line) == f"  missing: labels: {folder}"
    folder.mkdir(parents=True)
    names = [files[0] for files in labelled_files(tmp_path).values()]
    ranges = {name: [[0, 47, 1]] for name in PAHMDB51_VALUES}
    (folder / "wave.json").write_text(json.dumps(dict.fromkeys(names, ranges)))
    code, told = look("pa_hmdb51")
    assert code == 0, told
    assert "all: 3 labelled, official 515" in told
    (folder / "run.json").write_text(json.dumps({"stranger.avi": ranges}))
    code, told = look("pa_hmdb51")
    assert code == 1
    assert "no features of 1 videos of all: stranger" in told


def test_a_folder_of_ones_own(tmp_path, look):
    assert "gym/labels.csv: no such label file" in look("folder:gym")[1]
    rows = [["a.mp4", "sit", "train"], ["deep/b.mp4", "walk", "train"], ["c.mp4", "sit", "test"]]
    write_csv(tmp_path / "data/gym/labels.csv", ["filename", "label", "split"], rows)
    assert look("folder:gym", encoder=None)[0] == 1
    add_videos(tmp_path / "data/gym/videos", [name for name, *_ in rows])
    code, told = look("folder:gym", encoder=None)
    assert code == 0, told
    assert "folder:gym (2 classes): usable" in told
    for split, keys in (("train", "ab"), ("test", "c")):
        with StoreWriter(tmp_path / f"features/features_folder_gym_{split}_demo.h5", attributes=MADE) as writer:
            for key in keys:
                writer.add(key, np.ones((1, 192)))
    assert look("folder:gym")[0] == 0


@pytest.mark.parametrize(
    ("args", "culprit", "names"),
    [
        (["hmbd51"], "data set", ("'hmbd51'", "'hmdb51'")),
        (["hmdb51", "--encoder", "videomea"], "encoder 'videomea'", "'videoMAE'"),
        (["folder:../etc"], "dataset", ("'folder:../etc'", "'folder:NAME'")),
    ],
)
def test_bad_input_is_one_line(args, culprit, names):
    with refused(culprit, naming=names):
        study_command(["check-data", *args])


def test_real_annotations_have_their_official_counts(shared, tmp_path, look):
    source, data = shared / "annotations", tmp_path / "data"
    for file, place in {
        "thumos14.json": "thumos14/thumos14.json",
        "vispr_labels/train_labels.pkl": "vispr/train_labels.pkl",
        "vispr_labels/test_labels.pkl": "vispr/test_labels.pkl",
        "ntu_subject_gender_labels.json": "ntu/ntu_subject_gender_labels.json",
        "pa_hmdb51/PrivacyAttributes": "pa_hmdb51/PrivacyAttributes",
        **{
            f"vad_lists/{stem}{part}.list": f"{folder}/{stem}{part}.list"
            for stem, folder in (("ucf-i3d", "ucf_crime"), ("xd-i3d", "xd_violence"), ("shanghai-i3d", "shanghaitech"))
            for part in ("", "-test")
        },
        "vad_lists/gt-sh.npy": "shanghaitech/gt-sh.npy",
    }.items():
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        (data / place).symlink_to(source / file)
    for name in ("ucf_crime/gt-ucf.npy", "xd_violence/gt-xd.npy"):  # not published with the lists
        (data / name).write_bytes(b"")
    code, told = look("thumos14", "vispr", "pa_hmdb51", "ucf_crime", "xd_violence", "shanghaitech", encoder=None)
    assert code == 1, "no videos"
    for line in (
        "validation: 200 labelled, official 200",
        "test: 212 labelled, official 212",
        "train: 10000 labelled, official 10000",
        "test: 8000 labelled, official 8000",
        "all: 515 labelled, official 515",
        "train: 1610 labelled, official 1610",
        "test: 290 labelled, official 290",
        "train: 3953 labelled, official 3954",
        "test: 800 labelled, official 800",
        "train: 238 labelled, official 238",
        "test: 199 labelled, official 199",
    ):
        assert f"  {line}\n" in told, line
