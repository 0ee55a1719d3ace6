"""`feature_extraction_action.py` with the video transformers, as a user runs it: a file or folder in, a store out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

av = pytest.importorskip("av")
pytest.importorskip("cv2")
transformers = pytest.importorskip("transformers")

from feature_extraction.feature_extraction_action import main  # noqa: E402  needs the above
from splavu.stores import FeatureStore  # noqa: E402

WIDTH = 384  # the narrowest whose heads are known


@pytest.fixture
def videos(tmp_path) -> Path:
    """One video of 35 frames: two clips of 16, or eight of 4."""
    folder = tmp_path / "videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    with av.open(str(folder / "walk.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(35):
            frame = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return folder


def extracted(videos: Path, out: Path, encoder: str, weights: Path, *more: str) -> np.ndarray:
    args = ["--videos", videos, "--out", out, "--encoder", encoder, "--weights", weights, "--device", "cpu", "--quiet"]
    assert main([str(arg) for arg in (*args, *more)]) == 0
    store = FeatureStore(out)
    assert store.attributes["encoder"] == encoder
    features = store[store.keys()[0]]
    assert np.isfinite(features).all()
    assert not np.allclose(features[0], features[1])
    return features


def write_official(path: Path) -> Path:
    """One block of the fine-tuned VideoMAE layout."""
    torch.manual_seed(0)
    block = {
        **{f"{norm}.weight": torch.ones(WIDTH) for norm in ("norm1", "norm2")},
        **{f"{norm}.bias": torch.zeros(WIDTH) for norm in ("norm1", "norm2")},
        "attn.qkv.weight": torch.randn(3 * WIDTH, WIDTH) * 0.05,
        "attn.q_bias": torch.zeros(WIDTH),
        "attn.v_bias": torch.zeros(WIDTH),
        "attn.proj.weight": torch.randn(WIDTH, WIDTH) * 0.05,
        "attn.proj.bias": torch.zeros(WIDTH),
        "mlp.fc1.weight": torch.randn(8, WIDTH) * 0.05,
        "mlp.fc1.bias": torch.zeros(8),
        "mlp.fc2.weight": torch.randn(WIDTH, 8) * 0.05,
        "mlp.fc2.bias": torch.zeros(WIDTH),
    }
    stem = {
        "patch_embed.proj.weight": torch.randn(WIDTH, 3, 2, 16, 16) * 0.05,
        "patch_embed.proj.bias": torch.zeros(WIDTH),
    }
    norm = {"fc_norm.weight": torch.ones(WIDTH), "fc_norm.bias": torch.zeros(WIDTH)}
    torch.save({"module": stem | norm | {f"blocks.0.{name}": value for name, value in block.items()}}, path)
    return path


def test_an_official_file_in_either_precision(videos, tmp_path):
    weights = write_official(tmp_path / "vit.pth")
    exact = extracted(videos, tmp_path / "exact.h5", "internvid", weights)
    half = extracted(videos, tmp_path / "half.h5", "internvid", weights, "--precision", "bf16")
    assert exact.shape == half.shape == (2, WIDTH)
    assert exact.dtype == half.dtype == np.float32
    np.testing.assert_allclose(half, exact, atol=0.1)  # features of unit variance, 8 bits of mantissa
    with refused(weights, naming=("384", "1408")):
        main(
            ["--videos", str(videos), "--out", str(tmp_path / "no.h5"), "--encoder", "maev2", "--weights", str(weights)]
        )
    assert not (tmp_path / "no.h5").exists()


def test_a_large_videomae(videos, tmp_path):
    config = transformers.VideoMAEConfig(
        image_size=32,
        hidden_size=1024,
        num_hidden_layers=1,
        num_attention_heads=16,
        intermediate_size=64,
        use_mean_pooling=True,
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(tmp_path / "large")
    assert extracted(videos, tmp_path / "out.h5", "videoMAE-large", tmp_path / "large").shape == (2, 1024)


def test_any_model_of_the_library_with_its_own_clip_length(videos, tmp_path):
    config = transformers.TimesformerConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.TimesformerModel(config).save_pretrained(tmp_path / "timesformer")
    assert extracted(videos, tmp_path / "out.h5", "hf", tmp_path / "timesformer").shape == (8, 24)
