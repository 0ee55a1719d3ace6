"""Frame-level figures of the public evaluations (golden data of ../shared)."""

from __future__ import annotations

import numpy as np
import pytest

from mgfn.frame_scores import figures, repeated, stretch_sources


@pytest.mark.parametrize(
    ("kind", "frames"), [("orig_exact", 16), ("ted_exact", 32), ("ted_mismatch", 32), ("ted_half", 32)]
)
def test_frame_level_figures(shared, kind, frames):
    golden = np.load(shared / "golden/mgfn/metrics.npz", allow_pickle=False)
    snippets = np.concatenate([golden[f"pred_{video}"] for video in range(len(golden["lens"]))])
    assert [len(golden[f"pred_{video}"]) for video in range(4)] == golden["lens"].tolist()
    scores, truth = repeated(snippets, frames), golden[f"{kind}_gt"]
    assert (len(scores) == len(truth)) == kind.endswith("exact")
    scores = scores[stretch_sources(len(scores), len(truth))]
    found = figures(scores, truth, num_videos=len(golden["lens"]))
    assert found.roc_auc == pytest.approx(float(golden[f"{kind}_roc_auc"]), abs=1e-9)
    assert found.pr_auc == pytest.approx(float(golden[f"{kind}_pr_auc"]), abs=1e-9)
    assert found.num_abnormal_frames == truth.sum()
