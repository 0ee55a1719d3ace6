import re

import numpy as np
import pytest
from refusals import refused

from mgfn.errors import InputError
from mgfn.frame_scores import ScoredVideo
from mgfn.plots import draw_all, key_frames

pytest.importorskip("matplotlib")
cv2 = pytest.importorskip("cv2")

FRAMES = 16


def made(name, scores):
    frame_scores = np.repeat(np.array(scores, dtype=np.float32), FRAMES)
    return ScoredVideo(name, (), True, frame_scores, (frame_scores > 0.5).astype(np.int8))


def test_key_frames_are_the_peaks_of_each_fifth():
    scores = np.zeros(20)
    scores[[1, 7, 8, 15, 19]] = 1
    assert key_frames(np.repeat(scores, FRAMES), FRAMES) == [snippet * FRAMES + 8 for snippet in (1, 7, 8, 15, 19)]
    assert key_frames(np.repeat(np.zeros(2), FRAMES), FRAMES) == [8, 24]


def test_a_picture_a_video_taller_with_key_frames(tmp_path, caplog):
    folder = tmp_path / "videos" / "below"
    (folder / "images").mkdir(parents=True)
    for index in range(5 * FRAMES):
        cv2.imwrite(str(folder / "images" / f"{index:03d}.jpg"), np.full((24, 32, 3), 255 - index, np.uint8))
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for index in range(5 * FRAMES):
        writer.write(np.full((24, 32, 3), index, np.uint8))
    writer.release()
    scored = [made(name, [0.1, 0.9, 0.2, 0.8, 0.1]) for name in ("images", "clip", "absent")]
    draw_all(scored, tmp_path / "plots", FRAMES, videos=tmp_path / "videos")
    heights = {path.stem: cv2.imread(str(path)).shape[0] for path in (tmp_path / "plots").glob("*.png")}
    assert heights.keys() == {"images", "clip", "absent"}
    assert heights["images"] == heights["clip"] > heights["absent"]
    assert re.search(r"\b1 of 3 videos\b.*\babsent\b", caplog.text)


def test_the_truth_is_shaded(tmp_path):
    draw_all([made("flat", [0.0, 0.0]), made("event", [0.0, 0.9])], tmp_path, FRAMES)

    def share_of_red(name):
        image = cv2.imread(str(tmp_path / f"{name}.png")).astype(int)
        return ((image[..., 2] - image[..., 0] > 20) & (image[..., 2] - image[..., 1] > 20)).mean()

    assert share_of_red("flat") == 0
    assert 0.2 < share_of_red("event") < 0.5


def test_an_absent_folder_of_videos_is_refused(tmp_path):
    with refused("absent", InputError):
        draw_all([made("a", [0.5])], tmp_path, FRAMES, videos=tmp_path / "absent")


def test_names_are_no_formulas(tmp_path):
    draw_all([made(r"a$\frac$" + "\udce9", [0.5])], tmp_path, FRAMES)
    assert len(list(tmp_path.glob("*.png"))) == 1
