"""Average precision agrees to 1e-9 with the public evaluator."""

import json

import numpy as np
import pytest

from tridet.average_precision import Segments, mean_average_precision

CASES = [
    "random",
    "random_anet_thresholds",
    "class_without_predictions",
    "predictions_in_unknown_videos",
    "videos_without_predictions",
    "duplicate_ground_truth",
    "zero_length_ground_truth",
    "other_subset_ignored",
    "duplicated_predictions",
    "exact_threshold",
    "second_best_match",
    "all_wrong",
    "zero_length_predictions",
    "no_predictions",
    "single_perfect",
    "label_gap",
]


@pytest.mark.parametrize("case", CASES)
def test_made_up_cases(shared, case):
    golden = np.load(shared / "golden/tridet/map_eval.npz")
    assert {key.split("/")[0] for key in golden} == set(CASES)
    part = {key.split("/")[1]: golden[key] for key in golden if key.startswith(f"{case}/")}
    inside = np.char.lower(part["gt_subset"]) == str(part["split"])
    truth = Segments(part["gt_video"][inside], part["gt_segments"][inside], part["gt_label"][inside])
    predictions = Segments(part["pred_video"], part["pred_segments"], part["pred_label"], part["pred_score"])
    result = mean_average_precision(truth, predictions, tious=part["tiou"])
    clean = "_clean" if case == "label_gap" else ""  # the evaluator lets unknown classes collide with known ones
    np.testing.assert_array_equal(result.classes, part["ap_classes"])
    np.testing.assert_allclose(result.ap, part[f"ap{clean}"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.per_tiou, part[f"map{clean}"], rtol=0, atol=1e-9)
    assert result.average == pytest.approx(float(part[f"avg{clean}"]), abs=1e-9)
    assert result.num_ignored == (~np.isin(part["pred_label"], part["gt_label"][inside])).sum()


def test_thumos_test_set(shared):
    golden = np.load(shared / "golden/tridet/map_thumos.npz")
    database = json.loads((shared / "annotations/thumos14.json").read_text())["database"]
    rows = [
        (name, annotation["segment"], annotation["label_id"])
        for name, record in database.items()
        if record["subset"].lower() == "test"
        for annotation in record["annotations"]
    ]
    truth = Segments(*(np.array(column) for column in zip(*rows, strict=True)))
    assert len(truth) == golden["num_ground_truth"]
    predictions = Segments(
        golden["video_names"][golden["pred_video"]],
        golden["pred_segments"],
        golden["pred_label"],
        golden["pred_score"],
    )
    result = mean_average_precision(truth, predictions, tious=golden["tiou"])
    np.testing.assert_allclose(result.ap, golden["ap"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.per_tiou, golden["map"], rtol=0, atol=1e-9)
    assert result.average == pytest.approx(float(golden["avg"]), abs=1e-9)
