"""The real files with the counts in their README, and made-up ones with every fault a reader should name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import SHARED
from refusals import refused

from splavu.data import pahmdb51
from splavu.data.labels import VISPR_ATTRIBUTES


@pytest.fixture(scope="module")
def published():
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (the annotations of PA-HMDB51), which is not here")
    return pahmdb51.read_pahmdb51(SHARED / "annotations/pa_hmdb51/PrivacyAttributes")


def test_pahmdb51_has_the_published_videos_and_frames(published):
    assert len(published) == 515
    assert len({video.action for video in published.values()}) == 51
    lengths = [video.num_frames for video in published.values()]
    assert (sum(lengths), min(lengths), max(lengths)) == (52_533, 18, 647)


def test_pahmdb51_has_the_published_binary_counts(published):
    """annotations/README.md: frames with all five labels, positive frames among them, positive videos."""
    frames = [video.binary() for video in published.values()]
    every = np.concatenate(frames)
    complete = ~np.isnan(every).any(axis=1)
    assert complete.sum() == 52_411
    assert every[complete].sum(axis=0).tolist() == [50_934, 39_323, 51_350, 31_313, 8_207]
    assert sum(np.nanmax(video, axis=0) for video in frames).tolist() == [498, 418, 506, 306, 88]
    aligned = np.concatenate([video.as_vispr() for video in published.values()])
    assert aligned[complete].sum(axis=0).tolist() == [50_934, 51_350, 19_288, 20_035, 8_072, 8_207, 0]
    assert aligned.shape[1] == len(VISPR_ATTRIBUTES)


def test_every_range_of_pahmdb51_is_read_as_it_stands(published, shared):
    """Frame by frame, in the plainest way; the one frame in two ranges shows the later."""
    num_ranges = num_lists = 0
    for path in sorted((shared / "annotations/pa_hmdb51/PrivacyAttributes").glob("*.json")):
        for name, entry in json.loads(path.read_text()).items():
            video = published[name.removesuffix(".avi")]
            assert video.action == path.stem
            for attribute in pahmdb51.PAHMDB51_VALUES:
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
    video = pahmdb51.read_pahmdb51(tmp_path)["a_(1)[x]"]
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
    ("video", "names"),
    [
        (without("nudity"), "'nudity'"),
        (entry(face=[]), "'face'"),
        ([1, 2], "'skin_color'"),
        (entry(face=[[0, 4, 3]]), ("face", "3", "0 to 2")),
        (entry(gender=[[0, 4, [1, 5]]]), ("gender", "[1, 5]")),
        (entry(gender=[[0, 4, []]]), ("gender", "[]")),
        (entry(gender=[[0, 4, "male"]]), ("gender", "male")),
        (entry(relationship=[[0, 4, True]]), ("relationship", "True")),
        (entry(face=[[0, 4]]), ("face", "[0, 4]")),
        (entry(face=[[3, 2, 0], [3, 4, 1]]), ("face", "[3, 2, 0]")),
        (entry(face=[[-1, 4, 0]]), ("face", "[-1, 4, 0]")),
        (entry(face=[[0, 4.5, 0]]), ("face", "[0, 4.5, 0]")),
        (entry(nudity=[[0, 5, 0]]), ("nudity 5", "relationship 4")),
    ],
)
def test_bad_ranges_are_named_in_one_line(tmp_path, video, names):
    write(tmp_path, {"a.avi": video})
    with refused("wave.json", naming=names) as caught:
        pahmdb51.read_pahmdb51(tmp_path)
    assert "'a'" in caught.value.problem


def test_ranges_beyond_the_decoded_video_are_refused(tmp_path):
    write(tmp_path, {"a.avi": entry()})
    assert pahmdb51.read_pahmdb51(tmp_path, num_frames={"a": 5, "b": 1})["a"].num_frames == 5
    with refused("wave.json", naming=("'a'", "4")):
        pahmdb51.read_pahmdb51(tmp_path, num_frames={"a": 4})


def test_repeated_videos_and_empty_folders_are_refused(tmp_path):
    with refused(tmp_path):
        pahmdb51.read_pahmdb51(tmp_path)
    write(tmp_path, {"a.avi": entry()})
    write(tmp_path, {"a.avi": entry()}, action="walk")
    with refused("wave.json", naming=("'a'", "walk.json")):
        pahmdb51.read_pahmdb51(tmp_path)
    (tmp_path / "walk.json").write_text('{"b.avi": {"face": [], "face": []}}')
    with refused("walk.json", naming="'face'"):
        pahmdb51.read_pahmdb51(tmp_path)


def test_clips_take_what_their_frames_show():
    frames = np.full((40, 2), np.nan, dtype=np.float32)
    frames[16:, 0] = 0
    frames[20, 0] = 1
    frames[39, 1] = 1  # in the remainder, which no clip covers
    clips = pahmdb51.clip_labels(frames, 2, name="a")
    np.testing.assert_array_equal(clips, [[np.nan, np.nan], [1, np.nan]])
    np.testing.assert_array_equal(pahmdb51.clip_labels(frames[:5], 1, name="a"), [[np.nan, np.nan]])
    np.testing.assert_array_equal(pahmdb51.clip_labels(frames[19:22], 1, name="a"), [[1, np.nan]])
    with refused("a", naming=("3", "16", "40")):
        pahmdb51.clip_labels(frames, 3, name="a")
