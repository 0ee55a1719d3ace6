import json
import logging

import pytest
from refusals import refused

from tridet.annotations import ENDLESS, read_annotations
from tridet.errors import InputError


def record(**changes):
    made = {
        "subset": "Validation",
        "fps": 30,
        "duration": 20.0,
        "annotations": [{"segment": [1.0, 2.5], "label": "Run", "label_id": 0}],
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def annotation(segment=(1.0, 2.5), label="Run", label_id=0):
    return {"segment": list(segment), "label": label, "label_id": label_id}


@pytest.fixture
def written(tmp_path):
    def write(**records):
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps({"database": records}))
        return path

    return write


def test_the_real_file(shared, caplog):
    with caplog.at_level(logging.WARNING):
        annotations = read_annotations(shared / "annotations/thumos14.json", num_classes=20)
    counts = {
        split: (len(videos), sum(len(video.labels) for video in videos))
        for split in ("validation", "test")
        for videos in [annotations.of([split])]
    }
    assert counts == {"validation": (200, 3007), "test": (212, 3358)}
    assert sorted(annotations.classes.values()) == list(range(20))
    assert list(annotations.classes) != sorted(annotations.classes)  # as met in the file, so ids are not positions
    assert (annotations.classes["CliffDiving"], annotations.classes["Diving"]) == (4, 7)
    outside = {video.name: int(video.is_outside.sum()) for video in annotations.videos if video.is_outside.any()}
    assert sum(outside.values()) == 30
    assert outside["video_test_0000270"] == 22
    [warning] = caplog.messages
    assert "30 annotations of 5 videos" in warning
    assert "video_test_0000270" in warning


def test_classes_come_from_all_subsets(written):
    path = written(
        a=record(),
        b=record(subset="Background", annotations=[annotation(label="Jump", label_id=1)]),
    )
    annotations = read_annotations(path, num_classes=2)
    assert annotations.classes == {"Run": 0, "Jump": 1}
    assert [video.name for video in annotations.of(["VALIDATION"])] == ["a"]


def test_a_video_may_lack_duration_and_annotations(written):
    [video] = read_annotations(written(a=record(duration=None, annotations=[]))).videos
    assert video.duration == ENDLESS == 1e8
    assert video.segments.shape == (0, 2)
    assert video.labels.shape == (0,)


def test_default_fps_replaces_the_files(written):
    path = written(a=record(fps=None), b=record(fps=25))
    assert [video.fps for video in read_annotations(path, default_fps=24.0).videos] == [24.0, 24.0]


def test_annotations_past_the_end_are_kept_with_one_warning(written, caplog):
    late = [annotation((19.0, 21.0)), annotation((30.0, 31.0)), annotation((-1.0, 1.0)), annotation((19.0, 20.0))]
    with caplog.at_level(logging.WARNING):
        [video] = read_annotations(written(a=record(annotations=late))).videos
    assert len(video.segments) == 4
    assert video.is_outside.tolist() == [True, True, True, False]
    assert len(caplog.messages) == 1
    assert "3 annotations of 1 videos" in caplog.messages[0]


@pytest.mark.parametrize(
    ("changes", "place", "names"),
    [
        ({"fps": None}, "", ("fps", "None", "dataset.default_fps")),
        ({"fps": 0}, "", ("fps", "0")),
        ({"fps": "30"}, "", ("fps", "'30'")),
        ({"duration": "20 s"}, "", ("duration", "'20 s'")),
        ({"subset": None}, "", "'subset'"),
        ({"annotations": None}, "", "'annotations'"),
        ({"annotations": {}}, "", "'annotations'"),
        ({"annotations": [{"segment": [0, 1], "label": "Run"}]}, ": annotation 0", "label_id"),
        ({"annotations": [annotation(), annotation((2.0, 2.0))]}, ": annotation 1", "[2.0, 2.0]"),
        ({"annotations": [annotation((3.0, 2.0))]}, ": annotation 0", "[3.0, 2.0]"),
        ({"annotations": [annotation((1.0, 2.0, 3.0))]}, ": annotation 0", "[1.0, 2.0, 3.0]"),
        ({"annotations": [annotation((1.0, float("nan")))]}, ": annotation 0", "[1.0, nan]"),
        ({"annotations": [annotation(label_id=-1)]}, ": annotation 0", "label_id -1"),
        ({"annotations": [annotation(label_id="0")]}, ": annotation 0", "label_id '0'"),
        ({"annotations": [annotation(), annotation(label_id=1)]}, ": annotation 1", ("label_id 1", "0")),
    ],
)
def test_a_fault_names_the_file_and_the_video(written, changes, place, names):
    path = written(fine=record(), faulty=record(**changes))
    with refused(f"{path}: faulty{place}", InputError, naming=names):
        read_annotations(path)


def test_two_classes_of_one_number(written):
    path = written(a=record(annotations=[annotation(), annotation(label="Jump")]))
    with refused("annotations.json", InputError):
        read_annotations(path)


def test_another_number_of_classes(written):
    path = written(a=record())
    with refused("annotations.json", InputError):
        read_annotations(path, num_classes=20)
    assert read_annotations(path, num_classes=1).classes == {"Run": 0}


def test_official_ids_have_gaps(written):
    """As THUMOS14's, of which 20 of 101 are annotated: a class is numbered by the place of its id."""
    path = written(
        a=record(annotations=[annotation(label="Jump", label_id=101), annotation(label="Run", label_id=7)]),
        b=record(annotations=[annotation(label="Dive", label_id=26)]),
    )
    annotations = read_annotations(path, num_classes=3)
    assert annotations.classes == {"Run": 0, "Dive": 1, "Jump": 2}
    assert annotations.ids == (7, 26, 101)
    assert [video.labels.tolist() for video in annotations.videos] == [[2, 0], [1]]


def test_a_key_that_is_there_twice(tmp_path, written):
    text = json.dumps({"database": {"a": record(), "b": record()}})
    for twice in (text.replace('"b": {', '"a": {'), text.replace('"fps": 30', '"fps": 30, "fps": 25')):
        (tmp_path / "twice.json").write_text(twice)
        with refused("twice.json", InputError, naming="'a'" if twice.count('"a"') > 1 else "'fps'"):
            read_annotations(tmp_path / "twice.json")


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "a\0b", ""])
def test_a_name_that_leads_out_of_the_folder(written, name):
    with refused(f"{written(fine=record(), **{name: record()})}: {name}", InputError):
        read_annotations(written(fine=record(), **{name: record()}))


def test_a_file_nested_without_end(tmp_path):
    (tmp_path / "deep.json").write_text('{"database": ' + "[" * 100_000)
    with refused("deep.json", InputError):
        read_annotations(tmp_path / "deep.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"database": []}', '{"database": {}}', "\xff"])
def test_what_is_no_annotation_file(tmp_path, text):
    path = tmp_path / "annotations.json"
    path.write_text(text, encoding="latin-1")
    with refused("annotations.json", InputError):
        read_annotations(path)


def test_no_file(tmp_path):
    with refused("nothing.json", InputError):
        read_annotations(tmp_path / "nothing.json")
    with refused("dataset.json_file", InputError):
        read_annotations(None)


def test_an_unknown_split_offers_a_near_one(written):
    annotations = read_annotations(written(a=record()))
    with refused("annotations.json", InputError):
        annotations.of(["validaton"])
    with refused("annotations.json", InputError):
        annotations.of([])
