"""The real files with the counts in their README, and made-up ones with every fault a reader should name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import SHARED

from splavu.data import private_labels
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.errors import UserError


@pytest.fixture(scope="module")
def pahmdb51():
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (the annotations of PA-HMDB51), which is not here")
    return private_labels.read_pahmdb51(SHARED / "annotations/pa_hmdb51/PrivacyAttributes")


def test_pahmdb51_has_the_published_videos_and_frames(pahmdb51):
    assert len(pahmdb51) == 515
    assert len({video.action for video in pahmdb51.values()}) == 51
    lengths = [video.num_frames for video in pahmdb51.values()]
    assert (sum(lengths), min(lengths), max(lengths)) == (52_533, 18, 647)


def test_pahmdb51_has_the_published_binary_counts(pahmdb51):
    """annotations/README.md: frames with all five labels, positive frames among them, positive videos."""
    frames = [video.binary() for video in pahmdb51.values()]
    every = np.concatenate(frames)
    complete = ~np.isnan(every).any(axis=1)
    assert complete.sum() == 52_411
    assert every[complete].sum(axis=0).tolist() == [50_934, 39_323, 51_350, 31_313, 8_207]
    assert sum(np.nanmax(video, axis=0) for video in frames).tolist() == [498, 418, 506, 306, 88]
    aligned = np.concatenate([video.as_vispr() for video in pahmdb51.values()])
    assert aligned[complete].sum(axis=0).tolist() == [50_934, 51_350, 19_288, 20_035, 8_072, 8_207, 0]
    assert aligned.shape[1] == len(VISPR_ATTRIBUTES)


def test_every_range_of_pahmdb51_is_read_as_it_stands(pahmdb51, shared):
    """Frame by frame, in the plainest way; the one frame in two ranges shows the later."""
    num_ranges = num_lists = 0
    for path in sorted((shared / "annotations/pa_hmdb51/PrivacyAttributes").glob("*.json")):
        for name, entry in json.loads(path.read_text()).items():
            video = pahmdb51[name.removesuffix(".avi")]
            assert video.action == path.stem
            for attribute in private_labels.PAHMDB51_VALUES:
                expected = [set() for _ in range(video.num_frames)]
                for start, end, value in entry[attribute]:
                    num_ranges += 1
                    num_lists += isinstance(value, list)
                    for frame in range(start, end + 1):
                        expected[frame] = {1} if value == [0, 1] else set(value if isinstance(value, list) else [value])
                found = [set(np.flatnonzero(row).tolist()) for row in video.values[attribute]]
                assert found == expected, (name, attribute)
    assert (num_ranges, num_lists) == (3_443, 46)


def entry(**changes) -> dict:
    """Five frames; skin unknown in the first, two genders in the last two."""
    return {
        "skin_color": [[1, 4, 2]],
        "face": [[0, 1, 0], [2, 2, 1], [3, 4, 2]],
        "gender": [[0, 2, 0], [3, 4, [1, 2]]],
        "nudity": [[0, 3, 1], [4, 4, 2]],
        "relationship": [[0, 4, 0]],
        "review": True,
    } | changes


def write(folder, videos: dict, action: str = "wave") -> None:
    (folder / f"{action}.json").write_text(json.dumps(videos))


def test_frames_become_binary_and_vispr_vectors(tmp_path):
    write(tmp_path, {"a_(1)[x].avi": entry()})
    video = private_labels.read_pahmdb51(tmp_path)["a_(1)[x]"]
    assert (video.action, video.num_frames, video.multi_hot.shape) == ("wave", 5, (5, 15))
    unknown = np.nan
    np.testing.assert_array_equal(
        video.binary(), [[unknown, 0, 0, 1, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(
        video.as_vispr(),
        [
            [unknown, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 1, 0, 0, 0],
            [1, 1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 1, 0, 0],
        ],
    )
    assert video.as_vispr(lenient_nudity=True)[:, 4].tolist() == [1] * 5
    assert video.multi_hot[4].nonzero()[0].tolist() == [2, 6, 8, 9, 12, 13]


def without(attribute: str) -> dict:
    return {name: ranges for name, ranges in entry().items() if name != attribute}


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (without("nudity"), "'a' has no ranges of 'nudity'"),
        (entry(face=[]), "'a' has no ranges of 'face'"),
        ([1, 2], "'a' has no ranges of 'skin_color'"),
        (entry(face=[[0, 4, 3]]), "unknown face value 3; known: 0 to 2"),
        (entry(gender=[[0, 4, [1, 5]]]), "unknown gender value .1, 5."),
        (entry(gender=[[0, 4, []]]), "unknown gender value"),
        (entry(gender=[[0, 4, "male"]]), "unknown gender value male"),
        (entry(relationship=[[0, 4, True]]), "unknown relationship value True"),
        (entry(face=[[0, 4]]), "'a' has the face range .0, 4.; expected .first frame"),
        (entry(face=[[3, 2, 0], [3, 4, 1]]), "face range .3, 2, 0."),
        (entry(face=[[-1, 4, 0]]), "face range .-1, 4, 0."),
        (entry(face=[[0, 4.5, 0]]), "face range .0, 4.5, 0."),
        (entry(nudity=[[0, 5, 0]]), "ranges outside the video: .* nudity 5, relationship 4"),
    ],
)
def test_bad_ranges_are_named_in_one_line(tmp_path, video, message):
    write(tmp_path, {"a.avi": video})
    with pytest.raises(UserError, match=message) as caught:
        private_labels.read_pahmdb51(tmp_path)
    assert "wave.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ranges_beyond_the_decoded_video_are_refused(tmp_path):
    write(tmp_path, {"a.avi": entry()})
    assert private_labels.read_pahmdb51(tmp_path, num_frames={"a": 5, "b": 1})["a"].num_frames == 5
    with pytest.raises(UserError, match="'a' has a range to frame 4, but the video has 4 frames"):
        private_labels.read_pahmdb51(tmp_path, num_frames={"a": 4})


def test_repeated_videos_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no annotation file"):
        private_labels.read_pahmdb51(tmp_path)
    write(tmp_path, {"a.avi": entry()})
    write(tmp_path, {"a.avi": entry()}, action="walk")
    with pytest.raises(UserError, match="wave.json: 'a' stands in walk.json too"):
        private_labels.read_pahmdb51(tmp_path)
    (tmp_path / "walk.json").write_text('{"b.avi": {"face": [], "face": []}}')
    with pytest.raises(UserError, match="'face' stands there twice"):
        private_labels.read_pahmdb51(tmp_path)


def test_clips_take_what_their_frames_show():
    frames = np.full((40, 2), np.nan, dtype=np.float32)
    frames[16:, 0] = 0
    frames[20, 0] = 1
    frames[39, 1] = 1  # in the remainder, which no clip covers
    clips = private_labels.clip_labels(frames, 2, name="a")
    np.testing.assert_array_equal(clips, [[np.nan, np.nan], [1, np.nan]])
    np.testing.assert_array_equal(private_labels.clip_labels(frames[:5], 1, name="a"), [[np.nan, np.nan]])
    np.testing.assert_array_equal(private_labels.clip_labels(frames[19:22], 1, name="a"), [[1, np.nan]])
    with pytest.raises(UserError, match="a: has 3 clips of 16 frames, but its labels cover 40 frames"):
        private_labels.clip_labels(frames, 3, name="a")


def test_real_ntu_genders(shared):
    genders = private_labels.read_ntu_genders(shared / "annotations/ntu_subject_gender_labels.json")
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
        ('{"male": ["P001"], "female": ["P001"]}', "'P001' stands there twice"),
        ('{"male": ["P001"], "male": ["P002"], "female": []}', "'male' stands there twice"),
        ("[]", "holds a list"),
    ],
)
def test_bad_ntu_genders_are_named(tmp_path, text, message):
    path = tmp_path / "genders.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        private_labels.read_ntu_genders(path)


def test_gender_csv(tmp_path):
    path = tmp_path / "ntu_val_labels.csv"
    path.write_text("filename,gender\nS001C001P001R001A001_rgb.avi,female\nS001C001P003R001A001_rgb.avi,M\n")
    expected = {"S001C001P001R001A001_rgb": "female", "S001C001P003R001A001_rgb": "male"}
    assert private_labels.read_gender_csv(path) == expected
    path.write_text("filename,gender\na.avi,2\n")
    with pytest.raises(UserError, match="'a' has gender '2'; known: female, male"):
        private_labels.read_gender_csv(path)
    path.write_text("filename,sex\na.avi,male\n")
    with pytest.raises(UserError, match="not 'gender'"):
        private_labels.read_gender_csv(path)


HEADER = "filename,subject,gender,split,label\n"


def test_smarthome_rows(tmp_path):
    path = tmp_path / "tsh_labels.csv"
    path.write_text(f"{HEADER}Cook.Cut_p03_r01_v02_c03.mp4,3,male,train,1\nWalk_p02_r01_v02_c03.mp4,2,Female,test,31\n")
    assert private_labels.read_smarthome(path) == {
        "Cook.Cut_p03_r01_v02_c03": private_labels.SmarthomeVideo("3", "male", "train", 0),
        "Walk_p02_r01_v02_c03": private_labels.SmarthomeVideo("2", "female", "test", 30),
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.mp4,3,male,train,0\n", "this file counts from 1"),
        ("a.mp4,3,male,train,32\n", "there are 31 classes counted from 1"),
        ("a.mp4,3,male,training,1\n", "'a' is in split 'training'"),
        ("a.mp4,3,x,train,1\n", "'a' has gender 'x'"),
        ("a.mp4,3,male,train,1\na.mp4,3,male,train,1\n", "stands there twice"),
        ("a.mp4,3,male,train,1\nb.mp4,3,male,test,1\n", "subject '3' has split train and test"),
        ("a.mp4,3,male,train,1\nb.mp4,3,female,train,1\n", "subject '3' has gender male and female"),
        ("a.mp4,3,male,train\n", "has not the header's 5 cells"),
    ],
)
def test_bad_smarthome_rows_are_named(tmp_path, rows, message):
    path = tmp_path / "tsh_labels.csv"
    path.write_text(HEADER + rows)
    with pytest.raises(UserError, match=message):
        private_labels.read_smarthome(path)
    path.write_text("filename,subject,split,label\na.mp4,3,train,1\n")
    with pytest.raises(UserError, match="not 'gender'"):
        private_labels.read_smarthome(path)
