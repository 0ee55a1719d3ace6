import numpy as np

from tridet.average_precision import Segments
from tridet.score_fusion import fuse_video_scores


def test_fused_detections(shared):
    golden = np.load(shared / "golden/tridet/score_fusion.npz")
    fused = fuse_video_scores(_segments(golden, "in"), dict(enumerate(golden["class_scores"])))
    expected = _segments(golden, "out")
    np.testing.assert_array_equal(fused.video, expected.video)
    np.testing.assert_array_equal(fused.label, expected.label)
    np.testing.assert_array_equal(fused.segments, expected.segments)
    np.testing.assert_allclose(fused.score, expected.score, rtol=0, atol=1e-12)


def _segments(golden, side):
    return Segments(
        golden[f"{side}/video-id"],
        np.stack([golden[f"{side}/t-start"], golden[f"{side}/t-end"]], axis=1),
        golden[f"{side}/label"],
        golden[f"{side}/score"],
    )
