import re

import numpy as np
import pytest
import torch
from mgfn_world import FRAMES, WIDTH, write_world
from refusals import refused

from mgfn.data.batches import anonymized, balanced_batches, read_pooled, split_validation
from mgfn.data.features import FeatureVideos, read_preprocessed
from mgfn.data.ground_truth import GroundTruth
from mgfn.data.lists import Entry, read_list, require_both_kinds
from mgfn.errors import InputError
from mgfn.snippets import training_batch


def listed(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("file", "dataset", "abnormal", "normal"),
    [
        ("ucf-i3d.list", "UCF", 810, 800),
        ("ucf-i3d-test.list", "UCF", 140, 150),
        ("xd-i3d.list", "XD", 1905, 2048),
        ("xd-i3d-test.list", "XD", 500, 300),
        ("shanghai-i3d.list", "ST", 63, 175),
        ("shanghai-i3d-test.list", "ST", 44, 155),
    ],
)
def test_names_of_the_real_lists_tell_their_labels(shared, file, dataset, abnormal, normal):
    entries = read_list(shared / "annotations/vad_lists" / file, dataset)
    assert [sum(entry.is_abnormal == wanted for entry in entries) for wanted in (True, False)] == [abnormal, normal]
    if dataset != "ST":
        assert all(bool(entry.classes) == entry.is_abnormal for entry in entries)


def test_classes_of_the_real_lists(shared):
    folder = shared / "annotations/vad_lists"
    classes = {name for entry in read_list(folder / "ucf-i3d-test.list", "UCF") for name in entry.classes}
    assert len(classes) == 13
    assert {"Abuse", "RoadAccidents", "Vandalism"} <= classes
    classes = {name for entry in read_list(folder / "xd-i3d-test.list", "XD") for name in entry.classes}
    assert classes == {"Fighting", "Shooting", "Riot", "Abuse", "CarAccident", "Explosion"}


def test_a_column_of_labels_wins_over_the_name(tmp_path):
    path = listed(
        tmp_path / "a.list", "x/Fighting001_x264.npy 0", "y\\clip.one.npy\t1", "z/b.npy, abnormal", "c,normal"
    )
    found = [(entry.name, entry.is_abnormal) for entry in read_list(path, "UCF")]
    assert found == [("Fighting001_x264", False), ("clip.one", True), ("b", True), ("c", False)]


@pytest.mark.parametrize(
    ("lines", "culprit", "names"),
    [
        ([], "bad.list", ()),
        (["x/whatever.npy"], "bad.list line 1", "'whatever'"),
        (
            ["a/Abuse001_x264.npy", "b/Abuse001_x264.npy"],
            "bad.list line 2",
            ("'Abuse001_x264'", "bad.list line 1"),
        ),
        (["a/Abuse001_x264.npy 1", "", "a/Abuse002_x264.npy"], "bad.list line 3", ()),
    ],
)
def test_bad_lists_are_refused(tmp_path, lines, culprit, names):
    with refused(culprit, InputError, naming=names):
        read_list(listed(tmp_path / "bad.list", *lines), "UCF")


def test_absent_or_binary_lists_and_unknown_sets_are_refused(tmp_path):
    with refused("absent.list", InputError):
        read_list(tmp_path / "absent.list", "UCF")
    (tmp_path / "binary.list").write_bytes(b"\xff\xfe\x00")
    with refused("binary.list", InputError):
        read_list(tmp_path / "binary.list", "UCF")
    with refused("datasetname", InputError):
        read_list(listed(tmp_path / "a.list", "x"), "UCFC")


@pytest.mark.parametrize(("names", "kind"), [(["Normal_Videos001_x264"], "abnormal"), (["Abuse001_x264"], "normal")])
def test_a_list_of_one_kind_is_refused_for_training(tmp_path, names, kind):
    entries = read_list(listed(tmp_path / "one.list", *names), "UCF")
    with refused("one.list", InputError):
        require_both_kinds(entries, tmp_path / "one.list")


def entries_of(*names):
    return [Entry(name, not name.startswith("Normal"), (), f"test.list line {i}") for i, name in enumerate(names, 1)]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "flat.npy", rng.random((7, WIDTH)))
    np.save(tmp_path / "one.npy", rng.random((5, 1, WIDTH), dtype=np.float32))
    return tmp_path


def test_files_with_and_without_crops(folder):
    videos = FeatureVideos(entries_of("flat", "one"), folder)
    assert (videos.feature_size, len(videos)) == (WIDTH, 2)
    assert [(video.shape, video.dtype) for video in videos] == [
        ((7, 1, WIDTH), torch.float32),
        ((5, 1, WIDTH), torch.float32),
    ]


def test_a_file_a_crop(folder):
    rng = np.random.default_rng(1)
    crops = [rng.random((4, WIDTH), dtype=np.float32) for _ in range(3)]
    for number, crop in enumerate(crops):
        np.save(folder / f"many__{number}.npy", crop)
    video = FeatureVideos(entries_of("many"), folder)[0]
    np.testing.assert_array_equal(video, np.stack(crops, axis=1))


def broken(folder, what):
    """Write one bad file and return the name it goes by."""
    if what == "empty file":
        (folder / "bad.npy").touch()
    elif what == "no array":
        (folder / "bad.npy").write_text("hello")
    elif what == "objects":
        np.save(folder / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    elif what != "missing":
        good = np.random.default_rng(0).random((6, WIDTH))
        good[3, 2] = {"NaN": np.nan, "infinity": np.inf}.get(what, 0.5)
        changed = {
            "no snippet": good[:0],
            "other width": good[:, 1:],
            "one row": good[0],
            "crops": np.stack([good, good], axis=1),
            "whole numbers": np.ones((6, WIDTH), dtype=int),
        }
        np.save(folder / "bad.npy", changed.get(what, good))
    return "bad"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "test.list line 2"),
        ("empty file", "bad.npy"),
        ("no array", "bad.npy"),
        ("objects", "bad.npy"),
        ("no snippet", "bad.npy"),
        ("other width", "bad.npy"),
        ("one row", "bad.npy"),
        ("crops", "bad.npy"),
        ("whole numbers", "bad.npy"),
        ("NaN", "bad.npy"),
        ("infinity", "bad.npy"),
    ],
)
def test_bad_feature_files_are_named(folder, what, message):
    with refused(message, InputError):
        FeatureVideos(entries_of("flat", broken(folder, what)), folder)[1]


def test_crops_that_come_first_are_no_snippets(folder):
    np.save(folder / "crops.npy", np.zeros((10, 32, WIDTH), np.float32))
    with refused("crops.npy", InputError, naming=("32 crops", "10 snippets")):
        FeatureVideos(entries_of("crops"), folder)
    assert FeatureVideos(entries_of("crops"), folder, crops_first=True)[0].shape == (10, 32, WIDTH)


def test_a_stated_width_is_insisted_on(folder):
    with refused("flat.npy", InputError):
        FeatureVideos(entries_of("flat"), folder, feature_size=768)
    with refused("absent", InputError):
        FeatureVideos(entries_of("flat"), folder / "absent")


def test_preprocessed_files_pass_untouched(folder):
    item = np.random.default_rng(0).random((2, 8, WIDTH + 1), dtype=np.float32)
    np.save(folder / "ready.npy", item)
    videos = FeatureVideos(entries_of("ready"), folder)
    np.testing.assert_array_equal(read_preprocessed(videos, num_segments=8)[0], item)
    with refused("ready.npy", InputError):
        read_preprocessed(videos, num_segments=32)


@pytest.mark.parametrize("workers", [0, 2])
def test_pooled_videos_are_those_asked_for_in_order(tmp_path, workers):
    world = write_world(tmp_path, crops=2)
    videos = FeatureVideos(read_list(tmp_path / "train.list", "UCF"), world.features)
    found = read_pooled(videos, [4, 1], num_segments=8, workers=workers)
    for item, index in zip(found, (4, 1), strict=True):
        torch.testing.assert_close(item, training_batch([videos[index]], num_segments=8)[0])


def test_an_anonymizer_sees_each_crop_as_a_sequence():
    seen = []

    def reverse(sequence):
        seen.append(sequence.shape)
        return sequence.flip(0)

    features = torch.rand(5, 3, WIDTH)
    torch.testing.assert_close(anonymized(features, reverse), features.flip(0))
    assert seen == [(5, WIDTH)] * 3
    assert anonymized(features, None) is features


def test_batches_balance_the_classes_and_leave_no_video_out():
    is_abnormal = np.arange(23) >= 16  # 16 normal, 7 abnormal
    batches = list(balanced_batches(is_abnormal, batch_size=6, seed=0, epoch=0))
    assert [len(batch) for batch in batches] == [12, 12, 8]
    for batch in batches:
        half = len(batch) // 2
        assert not is_abnormal[batch[:half]].any()
        assert is_abnormal[batch[half:]].all()
    counts = np.bincount(np.concatenate(batches), minlength=23)
    assert (counts[:16] == 1).all()
    assert set(counts[16:]) == {2, 3}


def test_batches_depend_on_seed_and_epoch_alone():
    is_abnormal = np.arange(40) % 2 == 1

    def drawn(seed, epoch):
        return list(balanced_batches(is_abnormal, batch_size=5, seed=seed, epoch=epoch))

    assert drawn(3, 1) == drawn(3, 1)
    assert drawn(3, 1) != drawn(3, 2)
    assert drawn(3, 1) != drawn(4, 1)


def test_validation_part_is_apart_stratified_and_drawn_by_its_seed():
    is_abnormal = np.arange(50) >= 30
    train, apart = split_validation(is_abnormal, share=0.2, seed=0)
    assert sorted([*train, *apart]) == list(range(50))
    assert is_abnormal[apart].sum() == 4
    assert len(apart) == 10
    assert (split_validation(is_abnormal, share=0.2, seed=0)[1] == apart).all()
    assert (split_validation(is_abnormal, share=0.2, seed=1)[1] != apart).any()
    assert len(split_validation(is_abnormal, share=0.0, seed=0)[1]) == 0
    with refused("--validation-share", InputError):
        split_validation(np.array([True, False, False]), share=0.2, seed=0)


NAMES = ("Abuse001_x264", "Normal_Videos_001_x264", "Abuse002_x264")
LENGTHS = (2, 1, 3)


def truth_of(path, **changes):
    values = {"frames_per_snippet": FRAMES, "dataset": "UCF", **changes}
    return GroundTruth(path, entries_of(*NAMES), LENGTHS, **values)


def labels_of(truth):
    return [video.truth for video in truth.scored([np.arange(length) for length in LENGTHS])]


def spans(length, *pairs):
    labels = np.zeros(length, dtype=int)
    for start, end in pairs:
        labels[start:end] = 1
    return labels


def test_one_array_is_divided_in_list_order(tmp_path):
    np.save(tmp_path / "gt.npy", spans(96, (10, 20), (90, 96)).astype(float))
    scored = truth_of(tmp_path / "gt.npy").scored([np.array([0.1, 0.2]), np.array([0.3]), np.array([0.4, 0.5, 0.6])])
    assert [len(video.truth) for video in scored] == [32, 16, 48]
    assert scored[0].truth.sum() == 10
    assert scored[2].truth[42:].all()
    assert scored[2].scores.tolist() == [0.4] * 16 + [0.5] * 16 + [0.6] * 16


@pytest.mark.parametrize(("length", "where"), [(95, "'Abuse002"), (40, "'Normal"), (97, "last")])
def test_one_array_of_another_length_is_refused_and_says_where(tmp_path, length, where):
    np.save(tmp_path / "gt.npy", spans(length, (10, 20)))
    for mismatch in ("error", "cut"):
        with refused("gt.npy", InputError, naming=(str(length), "96", where)):
            truth_of(tmp_path / "gt.npy", mismatch=mismatch)


def test_one_array_is_stretched_only_when_asked_for(tmp_path):
    np.save(tmp_path / "gt.npy", spans(48, (2, 10)))  # half the frame rate
    scored = truth_of(tmp_path / "gt.npy", mismatch="stretch").scored(
        [np.array([0, 1]), np.array([2]), np.arange(3, 6)]
    )
    assert [video.scores.tolist() for video in scored] == [
        [0] * 8 + [1] * 8,
        [2] * 8,
        [3] * 8 + [4] * 8 + [5] * 8,
    ]
    assert scored[0].truth.sum() == 8


def test_truth_in_the_order_of_another_list_is_refused(tmp_path):
    np.save(tmp_path / "gt.npy", spans(96, (40, 44)))  # the third video's event where the second one lies
    with refused("gt.npy", InputError):
        truth_of(tmp_path / "gt.npy")


def test_an_abnormal_video_without_an_event_is_told(tmp_path, caplog):
    np.save(tmp_path / "gt.npy", spans(96, (0, 4)))
    truth_of(tmp_path / "gt.npy")
    assert re.search(r"\b1 abnormal video.*\bAbuse002_x264\b", caplog.text)


@pytest.mark.parametrize("content", [np.full(96, 2), np.zeros((96, 1)), np.full(96, np.nan)])
def test_labels_other_than_0_and_1_are_refused(tmp_path, content):
    np.save(tmp_path / "gt.npy", content)
    with refused("gt.npy", InputError):
        truth_of(tmp_path / "gt.npy")


def test_a_folder_of_arrays(tmp_path, caplog):
    np.save(tmp_path / f"{NAMES[0]}.npy", spans(32, (5, 9)))
    with refused("Abuse002_x264.npy", InputError):
        truth_of(tmp_path)
    np.save(tmp_path / f"{NAMES[2]}.npy", spans(53, (0, 9)))
    with refused("test_a_folder_of_arrays0", InputError):
        truth_of(tmp_path)
    assert re.search(r"'Abuse002_x264'.*\b53\b.*\b48\b", caplog.text)
    assert [len(labels) for labels in labels_of(truth_of(tmp_path, mismatch="cut"))] == [32, 16, 48]
    assert [len(labels) for labels in labels_of(truth_of(tmp_path, mismatch="stretch"))] == [32, 16, 53]
    np.save(tmp_path / f"{NAMES[2]}.npy", spans(64, (0, 9)))  # a whole snippet more is no tail
    with refused("test_a_folder_of_arrays0", InputError):
        truth_of(tmp_path, mismatch="cut")


def test_text_annotation_of_ucf_crime(tmp_path):
    path = listed(
        tmp_path / "gt.txt",
        "Abuse001_x264.mp4  Abuse  4  7  20  40",
        "Normal_Videos_001_x264.mp4  Normal  -1  -1  -1  -1",
        "Abuse002_x264.mp4  Abuse  0  0  -1  -1",
    )
    expected = [spans(32, (4, 8), (20, 32)), spans(16), spans(48, (0, 1))]
    for found, labels in zip(labels_of(truth_of(path)), expected, strict=True):
        np.testing.assert_array_equal(found, labels)


def test_text_annotation_of_xd_violence(tmp_path):
    path = listed(tmp_path / "gt.txt", "Abuse001_x264 4 7", "Abuse002_x264 0 2 30 99")
    expected = [spans(32, (4, 7)), spans(16), spans(48, (0, 2), (30, 48))]
    for found, labels in zip(labels_of(truth_of(path, dataset="XD")), expected, strict=True):
        np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("Abuse002_x264.mp4 Abuse 60 70 -1 -1", ("60..70", "48")),
        ("Abuse002_x264.mp4 Abuse 10 90 -1 -1", "10..90"),
        ("Abuse002_x264.mp4 Abuse x y", ()),
        ("Abuse003_x264.mp4 Abuse 1 2 -1 -1", "'Abuse002_x264'"),
    ],
)
def test_bad_annotations_are_refused(tmp_path, line, names):
    with refused("gt.txt", InputError, naming=names):
        truth_of(listed(tmp_path / "gt.txt", "Abuse001_x264.mp4  Abuse  4  7  -1  -1", line))


def test_a_video_on_two_lines_of_a_text_is_refused(tmp_path):
    lines = ("Abuse001_x264.mp4  Abuse  4  7  -1  -1", "Abuse001_x264.mp4  Abuse  8  9  -1  -1")
    with refused("gt.txt", InputError, naming="'Abuse001_x264'"):
        truth_of(listed(tmp_path / "gt.txt", *lines))


def test_absent_ground_truth_is_refused(tmp_path):
    with refused("gt.npy", InputError):
        truth_of(tmp_path / "gt.npy")
    (tmp_path / "gt.npy").touch()
    with refused("gt.npy", InputError):
        truth_of(tmp_path / "gt.npy")
