import json

import numpy as np
import pytest

from tridet.assignment import assignment_report
from tridet.config import from_dict
from tridet.thumos14 import ThumosDataset


def report(folder, json_file, subset, **dataset):
    data = {"json_file": str(json_file), "feat_folder": str(folder), "input_dim": 1, "num_frames": 16, **dataset}
    config = from_dict({"dataset": data})
    return assignment_report(ThumosDataset(config.dataset, [subset], training=True), config)


@pytest.mark.parametrize(
    ("stride", "expected"),
    [(16, (3896, 2994, 1751, 204, 22, 14)), (4, (779, 2006, 2723, 2994, 1751, 231))],
)
def test_counts_of_the_real_training_set(shared, tmp_path, stride, expected):
    """Expected: computed with the public program's rules on features as long as the videos."""
    json_file = shared / "annotations/thumos14.json"
    for name, record in json.loads(json_file.read_text())["database"].items():
        if record["subset"] == "Validation":
            length = int(record["duration"] * record["fps"] / stride)
            np.save(tmp_path / f"{name}.npy", np.zeros((length, 1), np.float16))
    made = report(tmp_path, json_file, "validation", num_classes=20, feat_stride=stride)
    assert made.strides == (1, 2, 4, 8, 16, 32)
    assert made.positives == expected
    assert made.num_segments == 3007
    if stride == 16:
        assert made.num_unclaimed == 12
        assert "8881 positive points (3896 at stride 1," in str(made)
        assert "12 of 3007 actions have none" in str(made)


def test_actions_between_two_points_and_outside_claim_nothing(tmp_path, caplog):
    def segment(first, last):  # steps of the grid to seconds: 30 fps, 16 frames a step, 8 to a clip's centre
        return [(16 * first + 8) / 30, (16 * last + 8) / 30]

    placed = [segment(2.2, 2.8), segment(5.5, 8.5), segment(40.0, 44.0)]
    annotations = [{"segment": times, "label": "Run", "label_id": 0} for times in placed]
    record = {"subset": "Train", "fps": 30, "duration": 20 * 16 / 30, "annotations": annotations}
    empty = {**record, "annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps({"database": {"a": record, "b": empty}}))
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((20, 1), np.float32))
    made = report(tmp_path, tmp_path / "annotations.json", "train", num_classes=1)
    assert made.positives == (3, 0, 0, 0, 0, 0)  # steps 6, 7 and 8
    assert (made.num_segments, made.num_unclaimed) == (3, 2)
