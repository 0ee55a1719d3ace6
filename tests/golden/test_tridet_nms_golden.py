"""Keep lists are exact; scores and voted boundaries agree to float32 rounding."""

import json
import re

import numpy as np
import pytest
import torch

from tridet.nms import hard_nms, soft_nms, suppress, vote

SOFT = re.compile(r"(set\d)/raw_soft_(\w+)_thr([\d.]+)_sig([\d.]+)_min([\d.]+)/keep")
HARD = re.compile(r"(set\d)/raw_hard_thr([\d.]+)/keep")
BATCHED = re.compile(r"(set\d)/(batched\d)/segs")
DETECTIONS = {  # name -> options on top of the configuration's
    "soft_multi": {},
    "soft_multi_max100": {"max_segments": 100},
    "soft_agnostic_vote": {"multiclass": False},
    "soft_agnostic_vote_max100": {"multiclass": False, "max_segments": 100},
    "soft_agnostic_novote": {"multiclass": False, "voting_threshold": 0.0},
    "hard_multi": {"method": "hard"},
    "hard_agnostic_vote": {"method": "hard", "multiclass": False},
    "none": {"method": "none"},
}


@pytest.fixture
def golden(shared):
    return np.load(shared / "golden/tridet/nms.npz")


def test_soft_keep_lists(golden):
    cases = [match for key in golden if (match := SOFT.fullmatch(key))]
    assert len(cases) == 54
    for case in cases:
        name, method, *numbers = case.groups()
        iou_threshold, sigma, min_score = map(float, numbers)
        kept, scores = soft_nms(
            *_tensors(golden, name, "segs", "scores"),
            sigma=sigma,
            min_score=min_score,
            method=method,
            iou_threshold=iou_threshold,
        )
        assert kept.tolist() == golden[case.string].tolist(), case.string
        expected = golden[case.string.replace("/keep", "/dets")]
        np.testing.assert_array_equal(golden[f"{name}/segs"][kept.numpy()], expected[:, :2])
        np.testing.assert_allclose(scores, expected[:, 2], rtol=0, atol=1e-6)


def test_hard_keep_lists(golden):
    cases = [match for key in golden if (match := HARD.fullmatch(key))]
    assert len(cases) == 18
    for case in cases:
        name, iou_threshold = case.groups()
        kept = hard_nms(*_tensors(golden, name, "segs", "scores"), iou_threshold=float(iou_threshold))
        assert kept.tolist() == golden[case.string].tolist(), case.string


def test_suppression_of_one_video(golden):
    cases = [match for key in golden if (match := BATCHED.fullmatch(key))]
    assert len(cases) == 63
    for case in cases:
        name, options = case.groups()
        kwargs = json.loads(str(golden[f"{options}_kwargs"]))
        segments, scores, labels = suppress(
            *_tensors(golden, name, "segs", "scores", "labels"),
            method="soft" if kwargs["use_soft_nms"] else "hard",
            iou_threshold=kwargs["iou_threshold"],
            min_score=kwargs["min_score"],
            max_segments=kwargs["max_seg_num"],
            sigma=kwargs["sigma"],
            multiclass=kwargs["multiclass"],
            voting_threshold=kwargs["voting_thresh"],
        )
        expected = {part: golden[f"{name}/{options}/{part}"] for part in ("segs", "scores", "labels")}
        assert labels.tolist() == expected["labels"].tolist(), case.string
        np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=1e-6)
        defined = np.isfinite(expected["segs"])  # the release gives NaN to voted segments of zero length
        assert defined.all() or (name == "set6" and "NaN" not in str(segments))
        np.testing.assert_allclose(segments[defined], expected["segs"][defined], rtol=0, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_voting(golden, threshold):
    segments, scores = _tensors(golden, f"set{golden['voting_source_set']}", "segs", "scores")
    voted = vote(segments[:10], segments, scores, threshold=threshold)
    np.testing.assert_allclose(voted, golden[f"voting_{threshold}/refined"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", DETECTIONS)
def test_detections_of_a_networks_candidates(shared, mode):
    golden = np.load(shared / "golden/tridet/detections_small.npz")
    test = json.loads(str(golden["config_json"]))["test_cfg"]
    options = {
        "iou_threshold": test["iou_threshold"],
        "min_score": test["min_score"],
        "max_segments": test["max_seg_num"],
        "sigma": test["nms_sigma"],
        "voting_threshold": test["voting_thresh"],
    }
    for video in ("v0", "v1", "v2", "v3"):
        candidates = _tensors(golden, f"{video}/prenms", "segments", "scores", "labels")
        segments, scores, labels = suppress(*candidates, **{**options, **DETECTIONS[mode]})
        fps, duration, stride, frames = (
            float(golden[f"{video}/{name}"]) for name in ("fps", "duration", "feat_stride", "feat_num_frames")
        )
        seconds = ((segments * stride + 0.5 * frames) / fps).clamp(0, duration)
        expected = {part: golden[f"{video}/final_{mode}/{part}"] for part in ("segments", "scores", "labels")}
        np.testing.assert_array_equal(labels, expected["labels"])
        np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(seconds, expected["segments"], rtol=0, atol=1e-3)


def _tensors(golden, name, *parts):
    return tuple(torch.from_numpy(golden[f"{name}/{part}"]) for part in parts)
