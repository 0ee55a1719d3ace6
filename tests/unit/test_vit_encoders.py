"""Video transformers from official checkpoint files: layouts, pooling, positions, and what a bad file is told.

The expected features come from `slow_features`, which reads the official names one by one and writes attention out.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.data.encoders import EncoderSpec, encoder_spec
from splavu.extraction.encoders import load_encoder, official, videomae_v2, vjepa
from splavu.extraction.encoders.vit import LAYER_NORM_EPS, Architecture, VideoTransformer, resized, sinusoid

TINY = EncoderSpec("tiny", file_tag="tiny", feature_dim=None, loader="")
WIDTH, HEADS = 24, 3


def random_weights(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.5 / (np.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 1)
        for name, shape in shapes.items()
    }


def common_shapes(width, depth, hidden, patch, tubelet=2):
    shapes = {"patch_embed.proj.weight": (width, 3, tubelet, patch, patch), "patch_embed.proj.bias": (width,)}
    for i in range(depth):
        block = {
            **{f"{norm}.{kind}": (width,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")},
            "attn.qkv.weight": (3 * width, width),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "mlp.fc1.weight": (hidden, width),
            "mlp.fc1.bias": (hidden,),
            "mlp.fc2.weight": (width, hidden),
            "mlp.fc2.bias": (width,),
        }
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def mae_shapes(width=WIDTH, depth=2, hidden=32, patch=8, *, norm="fc_norm", classes=5):
    """The fine-tuned layout; with `norm` and no classes, the encoder of the pre-training one."""
    shapes = common_shapes(width, depth, hidden, patch)
    shapes |= {f"blocks.{i}.attn.{part}_bias": (width,) for i in range(depth) for part in "qv"}
    shapes |= {f"{norm}.{kind}": (width,) for kind in ("weight", "bias")}
    return shapes | ({"head.weight": (classes, width), "head.bias": (classes,)} if classes else {})


def jepa_shapes(width=WIDTH, depth=2, hidden=32, patch=8, *, tokens=8 * 4):
    shapes = common_shapes(width, depth, hidden, patch)
    shapes |= {f"blocks.{i}.attn.qkv.bias": (3 * width,) for i in range(depth)}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,), "pos_embed": (1, tokens, width)}


def pretraining(state):
    """The whole file of a pre-training run: the encoder under a prefix, and what features do not need."""
    rest = {
        "decoder.norm.weight": torch.ones(4),
        "encoder_to_decoder.weight": torch.ones(4, 4),
        "mask_token": torch.ones(4),
    }
    return {"model": {f"encoder.{name}": weight for name, weight in state.items()} | rest, "epoch": 800}


def slow_features(state, clips, num_heads, positions):
    """Official names to features, in loops, without the module under test."""

    def norm(name, x):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return centred * scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    kernel = state["patch_embed.proj.weight"]
    width, _, t, p, _ = kernel.shape
    features = []
    for clip in clips:  # [T, 3, H, W]
        tokens = [
            (kernel * clip[i : i + t, :, r : r + p, c : c + p].transpose(0, 1)).sum((1, 2, 3, 4))
            for i in range(0, clip.shape[0], t)
            for r in range(0, clip.shape[2], p)
            for c in range(0, clip.shape[3], p)
        ]
        x = torch.stack(tokens) + state["patch_embed.proj.bias"] + positions
        for i in range(sum(name.endswith("norm1.weight") for name in state)):
            block = f"blocks.{i}"
            y = norm(f"{block}.norm1", x) @ state[f"{block}.attn.qkv.weight"].T
            if f"{block}.attn.q_bias" in state:
                query_bias, value_bias = state[f"{block}.attn.q_bias"], state[f"{block}.attn.v_bias"]
                query, key, value = y.split(width, dim=-1)
                query, value = query + query_bias, value + value_bias
            else:
                query, key, value = (y + state[f"{block}.attn.qkv.bias"]).split(width, dim=-1)
            size, mixed = width // num_heads, []
            for h in range(num_heads):
                rows = slice(h * size, (h + 1) * size)
                mixed.append((query[:, rows] @ key[:, rows].T / size**0.5).softmax(-1) @ value[:, rows])
            x = x + torch.cat(mixed, -1) @ state[f"{block}.attn.proj.weight"].T + state[f"{block}.attn.proj.bias"]
            y = norm(f"{block}.norm2", x) @ state[f"{block}.mlp.fc1.weight"].T + state[f"{block}.mlp.fc1.bias"]
            y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
            x = x + y @ state[f"{block}.mlp.fc2.weight"].T + state[f"{block}.mlp.fc2.bias"]
        features.append(norm("fc_norm", x.mean(0)) if "fc_norm.weight" in state else norm("norm", x).mean(0))
    return torch.stack(features)


def slow_sinusoid(length, width):
    """Position by position, channel by channel."""
    angle = [[i / 10000 ** (2 * (j // 2) / width) for j in range(width)] for i in range(length)]
    return torch.tensor([[np.cos(a) if j % 2 else np.sin(a) for j, a in enumerate(row)] for row in angle]).float()


def tiny(checkpoint, **options):
    return videomae_v2.from_official(checkpoint, TINY, num_heads=HEADS, image_size=16, num_frames=4, **options)


def random_clips(frames=4, side=16, count=2):
    return torch.randn(count, frames, 3, side, side, generator=torch.Generator().manual_seed(9))


def test_a_fine_tuned_file_gives_fc_norm_of_the_mean():
    state = random_weights(mae_shapes())
    expected = slow_features(state, random_clips(), HEADS, slow_sinusoid(8, WIDTH))
    torch.testing.assert_close(tiny({"module": state})(random_clips()), expected, atol=1e-5, rtol=0)


def test_a_pre_training_file_gives_the_mean_of_normalised_tokens_and_says_so(caplog):
    state = random_weights(mae_shapes(norm="norm", classes=0))
    encoder = tiny(pretraining(state), source="pt.pth")
    expected = slow_features(state, random_clips(), HEADS, slow_sinusoid(8, WIDTH))
    torch.testing.assert_close(encoder(random_clips()), expected, atol=1e-5, rtol=0)
    assert [record.message.startswith("pt.pth: ") for record in caplog.records] == [True]


def test_a_jepa_file_gives_the_target_encoders_mean_of_normalised_tokens():
    targets, others = random_weights(jepa_shapes(), seed=1), random_weights(jepa_shapes(), seed=2)
    wrapped = {
        "encoder": {f"module.backbone.{name}": weight for name, weight in others.items()},
        "target_encoder": {f"module.backbone.{name}": weight for name, weight in targets.items()},
        "predictor": {"module.backbone.mask_tokens.0": torch.zeros(1)},
        "epoch": 300,
    }
    encoder = vjepa.from_official(wrapped, TINY, num_heads=HEADS)
    clips = random_clips(frames=16)
    expected = slow_features(targets, clips, HEADS, targets["pos_embed"][0])
    torch.testing.assert_close(encoder(clips), expected, atol=1e-5, rtol=0)
    assert (encoder.spec.num_frames, encoder.spec.preprocessing.crop) == (16, 16)
    del wrapped["target_encoder"]
    assert not torch.allclose(vjepa.from_official(wrapped, TINY, num_heads=HEADS)(clips), expected, atol=1e-2)


def test_the_transformers_module_agrees():
    pytest.importorskip("transformers")
    from splavu.extraction.encoders import videomae

    state = random_weights(mae_shapes(depth=3))
    theirs = videomae.from_official(state, TINY, num_heads=HEADS, image_size=16, num_frames=4)
    torch.testing.assert_close(tiny(state)(random_clips()), theirs(random_clips()), atol=1e-5, rtol=0)


def test_the_bias_of_queries_and_values_counts_and_that_of_keys_is_zero():
    state = random_weights(mae_shapes(depth=1))
    network = tiny(state).network
    query, key, value = network.blocks[0].attn.qkv.bias.split(WIDTH)
    assert torch.equal(query, state["blocks.0.attn.q_bias"])
    assert not key.any()
    assert torch.equal(value, state["blocks.0.attn.v_bias"])
    changed = tiny(state | {"blocks.0.attn.q_bias": torch.zeros(WIDTH)})
    assert not torch.allclose(changed(random_clips()), tiny(state)(random_clips()), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shapes", "wrap", "width"),
    [
        ("maev2", mae_shapes(1408, 1, 16, 14), "module", 1408),
        ("internvid", mae_shapes(384, 1, 16, 16), "module", 384),
        ("vjepa", jepa_shapes(1280, 1, 16, 16, tokens=8 * 14 * 14), "target_encoder", 1280),
        ("vjepa-large", jepa_shapes(1024, 1, 16, 16, tokens=8 * 14 * 14), "target_encoder", 1024),
    ],
)
def test_files_load_by_the_encoders_name(tmp_path, name, shapes, wrap, width):
    path = tmp_path / "official.pth"
    state = random_weights(shapes)
    torch.save({wrap: {f"module.{key}": value for key, value in state.items()}, "args": argparse.Namespace(lr=1)}, path)
    encoder = load_encoder(name, str(path))
    assert encoder.spec.feature_dim == width
    assert (encoder.spec.num_frames, encoder.spec.preprocessing.crop) == (16, 224)
    assert encoder.network.architecture.hidden == 16
    with path.open("r+b") as file:  # the weights are copies, so that the file may change under them
        file.write(bytes(path.stat().st_size))
    assert torch.equal(encoder.network.patch_embed.proj.weight, state["patch_embed.proj.weight"])


PARAMETERS = {  # of the specification's table, without head
    "internvid B": (768, 12, 3072, 16, 86_227_200),
    "internvid L": (1024, 24, 4096, 16, 303_860_736),
    "internvid H": (1280, 32, 5120, 16, 631_607_040),
    "maev2 g": (1408, 40, 6144, 14, 1_011_610_752),
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_full_size_files_have_the_published_number_of_parameters(size):
    width, depth, hidden, patch, expected = PARAMETERS[size]
    shapes = mae_shapes(width, depth, hidden, patch, classes=710)
    assert len(shapes) == 13 * depth + 6  # keys of the table, head included
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    encoder = videomae_v2.from_official({"module": state}, encoder_spec(size.split()[0]))
    key_biases = depth * width  # zero, and not in the file
    assert sum(weight.numel() for weight in encoder.parameters()) - key_biases == expected
    assert encoder.network.architecture.num_heads == (12 if width == 768 else 16)


@pytest.mark.parametrize(
    ("name", "width", "depth", "side"),
    [("vjepa", 1280, 32, 224), ("vjepa", 1280, 32, 384), ("vjepa-large", 1024, 24, 224)],
)
def test_full_size_jepa_tells_its_frame_size(name, width, depth, side):
    shapes = jepa_shapes(width, depth, 4 * width, 16, tokens=8 * (side // 16) ** 2)
    state = {f"module.backbone.{key}": torch.empty(shape, device="meta") for key, shape in shapes.items()}
    encoder = vjepa.from_official({"target_encoder": state}, encoder_spec(name))
    assert (encoder.spec.feature_dim, encoder.spec.num_frames) == (width, 16)
    assert encoder.spec.preprocessing.crop == side
    assert encoder.spec.preprocessing.short_side == side * 256 // 224


def test_a_clip_does_not_see_its_batch_and_half_precision_is_near():
    encoder = tiny(random_weights(mae_shapes()))
    clips = random_clips(count=4)
    together = encoder(clips)
    torch.testing.assert_close(together[1:2], encoder(clips[1:2]), atol=1e-5, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = encoder(clips)
    assert not torch.equal(half, together)
    torch.testing.assert_close(half.float(), together, atol=0.05, rtol=0)  # 8 bits of mantissa


# Positions


def test_positions_match_the_formula():
    torch.testing.assert_close(sinusoid(20, 6)[0], slow_sinusoid(20, 6), atol=1e-6, rtol=0)


def test_positions_of_the_trained_grid_stay_as_they_are():
    table = torch.randn(1, 2 * 3 * 3, 5)
    assert resized(table, (2, 3, 3), (2, 3, 3)) is table


def test_time_is_interpolated_linearly_at_the_centres_of_its_steps():
    values = np.array([0.0, 1.0, 4.0, 9.0])
    table = torch.tensor(values).float().repeat_interleave(4)[None, :, None]  # 4 steps of 2 x 2, one channel
    longer = resized(table, (4, 2, 2), (8, 2, 2)).reshape(8, 4)
    expected = np.interp((np.arange(8) + 0.5) / 2 - 0.5, np.arange(4), values)  # flat beyond the first and last centre
    np.testing.assert_allclose(longer.numpy(), np.tile(expected[:, None], 4), atol=1e-6)


def test_space_is_interpolated_bicubically_in_its_place():
    values = np.random.default_rng(0).normal(size=(8, 8))
    larger = resized(torch.tensor(values).float().reshape(1, 64, 1).repeat(1, 3, 1), (3, 8, 8), (3, 16, 16))

    def kernel(distance):  # Keys' cubic convolution with a = -0.75, as image libraries have it
        x, a = abs(distance), -0.75
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return near if x <= 1 else far if x < 2 else 0.0

    matrix = np.zeros((16, 8))
    for i in range(16):
        centre = (i + 0.5) / 2 - 0.5
        for j in range(-2, 10):
            matrix[i, min(max(j, 0), 7)] += kernel(centre - j)  # the border repeats
    for step in larger.reshape(3, 16, 16):
        np.testing.assert_allclose(step.numpy(), matrix @ values @ matrix.T, atol=1e-5)


def test_other_clips_use_interpolated_positions_and_not_new_ones():
    state = random_weights(mae_shapes())
    encoder, clips = tiny(state), random_clips(frames=8, side=24, count=1)
    expected = slow_features(state, clips, HEADS, resized(sinusoid(8, WIDTH), (2, 2, 2), (4, 3, 3))[0])
    torch.testing.assert_close(encoder(clips), expected, atol=1e-5, rtol=0)
    recomputed = slow_features(state, clips, HEADS, slow_sinusoid(36, WIDTH))
    assert not torch.allclose(encoder(clips), recomputed, atol=1e-3)


# What a bad file is told


def test_every_unmatched_name_is_counted_in_one_line():
    state = random_weights(mae_shapes())
    for i in range(2):
        del state[f"blocks.{i}.attn.v_bias"]
    bad = state | {"fc_norm.bias": torch.zeros(7), "blocks.0.gamma_1": torch.ones(WIDTH)}
    missing = ("2", "'blocks.0.attn.qkv.bias', 'blocks.1.attn.qkv.bias'")
    unknown = ("3", "'blocks.0.attn.q_bias', 'blocks.0.gamma_1', 'blocks.1.attn.q_bias'")
    with refused("bad.pth", naming=(*missing, *unknown, "1", "'fc_norm.bias'")):
        tiny({"module": bad}, source="bad.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"pos_embed": torch.zeros(1, 8, WIDTH)},
        {"norm.weight": torch.ones(WIDTH)},
        {"vision_encoder.transformer.resblocks.0.ln_1.weight": torch.ones(4)},
        {"blocks.0.attn.scale": torch.ones(1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_variants_that_no_released_model_has_are_refused(change):
    with refused("checkpoint"):
        tiny(random_weights(mae_shapes()) | change)


def test_files_of_other_things_are_refused(tmp_path):
    with refused("checkpoint"):
        tiny({"model": {"conv.weight": torch.ones(1)}})
    with refused("checkpoint"):
        videomae_v2.from_official(random_weights(mae_shapes()), TINY)
    with refused("checkpoint"):
        vjepa.from_official({"encoder": random_weights(mae_shapes())}, TINY)
    with refused("checkpoint"):
        vjepa.from_official(random_weights(jepa_shapes(tokens=33)), TINY, num_heads=HEADS)
    path = tmp_path / "file.pth"
    for content in (b"", b"no checkpoint"):
        path.write_bytes(content)
        with refused("file.pth"):
            official.read(path)
    torch.save([1, 2], path)
    with refused("file.pth"):
        official.read(path)


def test_a_file_that_carries_code_is_refused(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"module": random_weights(mae_shapes()), "hook": print}, path)
    with refused("file.pth"):
        load_encoder("maev2", str(path))


@pytest.mark.parametrize("name", ["maev2", "internvid", "vjepa", "vjepa-large"])
def test_missing_weights_say_which_to_get(name, tmp_path):
    with refused("--weights"):
        load_encoder(name)
    with refused("nowhere.pth"):
        load_encoder(name, str(tmp_path / "nowhere.pth"))


def test_another_width_names_the_row_it_belongs_to():
    large = {key: torch.empty(shape, device="meta") for key, shape in jepa_shapes(1024, 1, 16, 16, tokens=1568).items()}
    with refused("checkpoint"):
        vjepa.from_official({"target_encoder": large}, encoder_spec("vjepa"))


# Defects of the official programs (specification: videomae, section 7)


def test_positions_are_made_fast_follow_the_module_and_are_no_weights():
    started = time.perf_counter()
    giant = sinusoid(2048, 1408)
    assert time.perf_counter() - started < 2  # element by element, a machine needs longer
    assert giant.shape == (1, 2048, 1408)
    encoder = tiny(random_weights(mae_shapes()))
    assert encoder.network.to(torch.float64).pos_embed.dtype == torch.float64
    assert not any("pos_embed" in name for name in encoder.state_dict())


@pytest.mark.parametrize(("frames", "side", "said"), [(5, 16, "5 frames of 16 x 16"), (4, 20, "4 frames of 20 x 20")])
def test_clips_that_do_not_divide_into_patches_are_refused(frames, side, said):
    with refused("clips"):
        tiny(random_weights(mae_shapes()))(random_clips(frames, side))


def test_any_head_or_none_gives_the_same_features():
    state = random_weights(mae_shapes())
    bare = {name: weight for name, weight in state.items() if not name.startswith("head.")}
    assert tiny(bare).weights_hash == tiny(state).weights_hash
    assert tiny(bare)(random_clips()).abs().min() > 0


def test_a_wrong_prefix_is_an_error_and_not_a_random_network():
    with refused("checkpoint"):
        tiny({f"student.{name}": weight for name, weight in random_weights(mae_shapes()).items()})


def test_every_norm_has_the_official_epsilon():
    network = VideoTransformer(Architecture(WIDTH, 2, HEADS, 32, 8, 2, (2, 2, 2)))
    assert {m.eps for m in network.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6} == {LAYER_NORM_EPS}


def test_attention_is_the_fused_kind(monkeypatch):
    """Written out, 2048 tokens and 16 heads take 256 MiB a clip and block; the fused kind keeps no such matrix."""
    calls, fused = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *args: calls.append(args[0].shape) or fused(*args)
    )
    tiny(random_weights(mae_shapes(depth=2)))(random_clips())
    assert calls == [(2, HEADS, 8, WIDTH // HEADS)] * 2
