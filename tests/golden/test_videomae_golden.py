"""Official VideoMAE checkpoints give the features that the official program gives (golden data of ../shared)."""

from __future__ import annotations

import argparse
import hashlib

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from feature_extraction.encoders.videomae import from_official, official_state
from splavu.encoders import EncoderSpec
from splavu.errors import UserError


def noise(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    """z(tag, shape) of the golden README."""
    seed = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big")
    numbers = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(shape)))
    return ((numbers - 0.5) * np.sqrt(12)).reshape(shape)


def parameter(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Rule 2 of the golden README, for the names that occur here."""
    value = noise(f"{salt}:{name}", shape)
    if len(shape) > 1:
        value = value / np.sqrt(np.prod(shape[1:]))
    elif name.endswith(".weight"):
        value = 1 + 0.1 * value
    else:
        value = 0.1 * value
    return value.astype(np.float32)


@pytest.fixture(params=["small_p16", "small_p8", "mini_giant_p14"])
def golden(request, shared):
    data = dict(np.load(shared / "golden" / "videomae" / f"{request.param}.npz", allow_pickle=False))
    state = {}
    for name, shape, check in zip(data["param_names"], data["shapes"], data["param_checks"], strict=True):
        shape = tuple(int(size) for size in str(shape).strip("()[]").replace("x", ",").split(",") if size.strip())
        value = parameter(f"videomae-dev-{request.param}", str(name), shape)
        flat = value.astype(np.float64).ravel()
        np.testing.assert_allclose([flat.size, flat.sum(), np.abs(flat).sum(), flat[0], flat[-1]], check, rtol=1e-6)
        state[str(name)] = torch.from_numpy(value)
    return data, state


def build(data, checkpoint):
    spec = EncoderSpec("golden", file_tag="golden", feature_dim=int(data["embed_dim"]))
    return from_official(
        checkpoint,
        spec,
        num_heads=int(data["num_heads"]),
        image_size=int(data["img_size"]),
        num_frames=int(data["all_frames"]),
    )


def test_features_match_the_official_program(golden):
    data, state = golden
    encoder = build(data, state)
    clips = torch.from_numpy(data["input"]).transpose(1, 2)  # [B, 3, T, H, W] -> [B, T, 3, H, W]
    np.testing.assert_allclose(encoder(clips).numpy(), data["features"], atol=1e-5, rtol=0)  # the golden tolerance


def test_wrapped_checkpoints_load_alike(golden, tmp_path):
    data, state = golden
    wrapped = {
        "module": {f"_orig_mod.module.backbone.{name}": value for name, value in state.items()},
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-3),
    }
    assert official_state(wrapped, source="x").keys() == state.keys()
    assert build(data, wrapped).weights_hash == build(data, {"model": state}).weights_hash


def test_a_lost_bias_and_an_unknown_weight_are_refused(golden):
    data, state = golden
    with pytest.raises(UserError, match=r"query\.bias"):
        build(data, {name: value for name, value in state.items() if name != "blocks.0.attn.q_bias"})
    with pytest.raises(UserError, match="gamma_1"):
        build(data, state | {"blocks.0.gamma_1": torch.ones(1)})
    with pytest.raises(UserError, match="pre-training"):
        build(data, {f"encoder.{name}": value for name, value in state.items()})


def test_a_checkpoint_file_with_a_command_line_loads_and_code_does_not(golden, tmp_path, monkeypatch):
    from feature_extraction.encoders import load_encoder, videomae

    _, state = golden
    path = tmp_path / "official.pth"
    torch.save({"module": state, "args": argparse.Namespace(lr=1e-3)}, path)
    seen = {}
    monkeypatch.setattr(videomae, "from_official", lambda checkpoint, spec, **_: seen.update(checkpoint))
    load_encoder("videoMAE", str(path))
    assert seen["module"].keys() == state.keys()
    torch.save({"module": state, "hook": print}, path)
    with pytest.raises(UserError, match=r"official\.pth"):
        load_encoder("videoMAE", str(path))
