"""Official VideoMAE checkpoints give the features that the official program gives (golden data of ../shared)."""

from __future__ import annotations

import argparse
import hashlib

import numpy as np
import pytest
import torch
from refusals import refused

pytest.importorskip("transformers", reason="needs the extra 'encoders'")

from splavu.data.encoders import EncoderSpec
from splavu.extraction.encoders import videomae_v2
from splavu.extraction.encoders.videomae import from_official, official_state
from splavu.extraction.encoders.vit import sinusoid


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


def parameters(salt: str, names: np.ndarray, shapes: np.ndarray, checks: np.ndarray) -> dict[str, torch.Tensor]:
    """The weights of one layout, compared with their checksums."""
    state = {}
    for name, shape, check in zip(names, shapes, checks, strict=True):
        shape = tuple(int(size) for size in str(shape).strip("()[]").replace("x", ",").split(",") if size.strip())
        value = parameter(salt, str(name), shape)
        flat = value.astype(np.float64).ravel()
        np.testing.assert_allclose([flat.size, flat.sum(), np.abs(flat).sum(), flat[0], flat[-1]], check, rtol=1e-6)
        state[str(name)] = torch.from_numpy(value)
    return state


@pytest.fixture(params=["small_p16", "small_p8", "mini_giant_p14"])
def golden(request, shared):
    data = dict(np.load(shared / "golden" / "videomae" / f"{request.param}.npz", allow_pickle=False))
    salt = f"videomae-dev-{request.param}"
    data["salt"] = salt
    return data, parameters(salt, data["param_names"], data["shapes"], data["param_checks"])


def build(data, checkpoint, from_official=from_official):
    spec = EncoderSpec("golden", file_tag="golden", feature_dim=int(data["embed_dim"]), loader="")
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


def test_our_transformer_matches_the_official_program_at_every_step(golden):
    data, state = golden
    encoder = build(data, {"module": state}, videomae_v2.from_official)
    clips = torch.from_numpy(data["input"]).transpose(1, 2)
    np.testing.assert_allclose(encoder(clips).numpy(), data["features"], atol=1e-5, rtol=0)
    network = encoder.network
    tokens = network.patch_embed(clips).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(tokens.numpy(), data["patch_tokens"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(network.pos_embed.numpy(), data["pos_table"], atol=1e-6, rtol=0)
    tokens = tokens + network.pos_embed
    for i, block in enumerate(network.blocks):
        tokens = block(tokens)
        np.testing.assert_allclose(tokens.numpy(), data[f"after_block_{i}"], atol=1e-5, rtol=0)


def test_pre_training_files_give_the_official_tokens(golden):
    data, _ = golden
    state = parameters(f"{data['salt']}-pre", data["pre_param_names"], data["pre_shapes"], data["pre_param_checks"])
    encoder = build(data, {"model": state}, videomae_v2.from_official)
    clips = torch.from_numpy(data["input"]).transpose(1, 2)
    np.testing.assert_allclose(encoder.network.tokens(clips).numpy(), data["pre_encoder_all"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(encoder(clips).numpy(), data["pre_encoder_all"].mean(1), atol=1e-5, rtol=0)


def test_a_file_that_pools_by_its_first_token_is_refused(golden):
    data, state = golden
    first = {name.replace("fc_norm.", "norm."): value for name, value in state.items()}
    assert first.keys() == set(data["first_token_param_names"].tolist())
    with refused("checkpoint"):
        build(data, first, videomae_v2.from_official)


@pytest.mark.parametrize("size", ["784x512", "1568x384", "1568x768", "1568x1024", "1568x1280", "2048x1408"])
def test_positions_match_the_official_table(shared, size):
    data = np.load(shared / "golden" / "videomae" / "sinusoid.npz", allow_pickle=False)
    table = sinusoid(*map(int, size.split("x"))).numpy()
    np.testing.assert_allclose(table.ravel()[data[f"{size}_index"]], data[f"{size}_value"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(table.sum(dtype=np.float64), data[f"{size}_sum"], atol=1e-2, rtol=0)


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
    with refused("checkpoint"):
        build(data, {name: value for name, value in state.items() if name != "blocks.0.attn.q_bias"})
    with refused("checkpoint"):
        build(data, state | {"blocks.0.gamma_1": torch.ones(1)})
    with refused("checkpoint"):
        build(data, {f"encoder.{name}": value for name, value in state.items()})


def test_a_checkpoint_file_with_a_command_line_loads_and_code_does_not(golden, tmp_path, monkeypatch):
    from splavu.extraction.encoders import load_encoder, videomae

    _, state = golden
    path = tmp_path / "official.pth"
    torch.save({"module": state, "args": argparse.Namespace(lr=1e-3)}, path)
    seen = {}
    monkeypatch.setattr(videomae, "from_official", lambda checkpoint, spec, **_: seen.update(checkpoint))
    load_encoder("videoMAE", str(path))
    assert seen["module"].keys() == state.keys()
    torch.save({"module": state, "hook": print}, path)
    with refused("official.pth"):
        load_encoder("videoMAE", str(path))
