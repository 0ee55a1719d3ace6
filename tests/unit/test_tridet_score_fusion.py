import json

import numpy as np
import pytest
from refusals import refused

from tridet.average_precision import Segments
from tridet.errors import InputError
from tridet.score_fusion import fuse_video_scores, read_video_scores

DETECTIONS = Segments(
    np.array(["b", "a", "b"]), np.array([[0.0, 1], [2, 3], [4, 5]]), np.array([7, 7, 7]), np.array([0.25, 0.5, 1.0])
)


def test_best_segments_go_to_each_of_the_best_classes():
    scores = {"a": np.array([0.1, 0.5, 0.0]), "b": np.array([0.0, 0.04, 0.64])}
    fused = fuse_video_scores(DETECTIONS, scores)
    assert fused.video.tolist() == ["b"] * 4 + ["a"] * 2
    assert fused.label.tolist() == [2, 2, 1, 1, 1, 0]
    assert fused.segments[:, 0].tolist() == [4, 0, 4, 0, 2, 2]
    assert fused.score.tolist() == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.5, 0.05**0.5])
    assert fuse_video_scores(DETECTIONS, scores, num_segments=1, num_classes=1).segments.tolist() == [[4, 5], [2, 3]]


def test_no_detections_stay_none():
    nothing = Segments(np.zeros(0, dtype=str), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    assert len(fuse_video_scores(nothing, {"a": np.array([0.5, 0.5])})) == 0


@pytest.mark.parametrize("wrap", [lambda table: table, lambda table: {"version": 1, "results": table}])
def test_file_is_read_with_and_without_its_top_key(tmp_path, wrap):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(wrap({"a": [0.25, 0.75], "b": [1, 0]})))
    scores = read_video_scores(path)
    assert {video: row.tolist() for video, row in scores.items()} == {"a": [0.25, 0.75], "b": [1, 0]}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"a": "high"}', '{"a": [1, 2], "b": [1]}', '{"a": [-0.5, 2]}', '{"a": [0.5, 2], "b": []}']
)
def test_a_bad_file_is_named(tmp_path, text):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with refused(path, InputError):
        read_video_scores(path)


def test_pickle_is_refused_unopened(tmp_path):
    with refused("scores.pkl", InputError):
        read_video_scores(tmp_path / "scores.pkl")
    with refused("absent.json", InputError):
        read_video_scores(tmp_path / "absent.json")


def test_a_video_without_scores_is_named():
    with refused("video scores", InputError):
        fuse_video_scores(DETECTIONS, {"a": np.array([0.5, 0.5])})
