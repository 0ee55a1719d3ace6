"""The kernels for a CPU compute the function of the network: against slow loops, and against the network itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_vit_encoders import HEADS, TINY, WIDTH, mae_shapes, pretraining, random_weights, slow_features, slow_sinusoid

from splavu.data.encoders import Preprocessing
from splavu.extraction.encoders import cpu_transformer, frozen, videomae_v2, vjepa
from splavu.extraction.preprocessing import normalise

CPU = torch.device("cpu")
HALVES = Preprocessing(short_side=16, crop=16, mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7))


def official(state):
    return videomae_v2.from_official(state, TINY, num_heads=HEADS, image_size=16, num_frames=4)


def levels(frames=4, side=16, count=3):
    return torch.randint(
        256, (count, frames, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def pixels(clips, preprocessing):
    """Levels to normalised pixels, written out; float64."""
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (preprocessing.mean, preprocessing.std))
    return ((clips.double() / 255 - mean) / std).permute(0, 1, 4, 2, 3)


def exact(state):
    return {name: weight.double() for name, weight in state.items()}


@pytest.mark.parametrize("preprocessing", [Preprocessing(short_side=16, crop=16), HALVES])
@pytest.mark.parametrize("few", [0, 256])
@pytest.mark.parametrize("onednn", [True, False])
def test_float32_features_are_those_of_slow_loops(monkeypatch, preprocessing, few, onednn):
    if not onednn:
        monkeypatch.setattr(cpu_transformer, "_has_onednn", lambda dtype: False)
    monkeypatch.setattr(cpu_transformer, "FEW_TOKENS", few)
    state = random_weights(mae_shapes())
    clips, positions = levels(), slow_sinusoid(8, WIDTH)
    features = official(state).extractor(preprocessing, device=CPU)(clips)
    assert features.dtype == torch.float32
    expected = slow_features(exact(state), pixels(clips, preprocessing), HEADS, positions)
    torch.testing.assert_close(features, expected.float(), atol=1e-5, rtol=0)


def test_packed_weights_give_the_product_of_plain_ones():
    if not cpu_transformer._has_onednn(torch.bfloat16):
        pytest.skip("no oneDNN for bf16 here")
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(24, 40, generator=generator), torch.randn(24, generator=generator)
    for num_rows in (1, 7, 1500):
        rows = torch.randn(num_rows, 40, generator=generator).bfloat16()
        got = cpu_transformer.linear(rows, cpu_transformer.packed(weight.bfloat16()), bias.bfloat16())
        expected = rows.double() @ weight.bfloat16().double().T + bias.bfloat16().double()
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=2**-8)  # rounded once, at the end


def test_the_final_norm_of_every_family_is_kept():
    state = random_weights(mae_shapes(norm="norm", classes=0))
    clips = levels()
    encoder = videomae_v2.from_official(pretraining(state), TINY, num_heads=HEADS, image_size=16, num_frames=4)
    expected = slow_features(exact(state), pixels(clips, HALVES), HEADS, slow_sinusoid(8, WIDTH))
    torch.testing.assert_close(
        encoder.extractor(HALVES, device=CPU)(clips), expected.float(), atol=1e-5, rtol=0
    )  # mean after norm


def test_positions_kept_among_the_weights_count():
    from test_vit_encoders import jepa_shapes

    state, clips = random_weights(jepa_shapes()), levels(frames=16)
    encoder = vjepa.from_official({"target_encoder": state}, TINY, num_heads=HEADS)
    expected = slow_features(exact(state), pixels(clips, HALVES), HEADS, state["pos_embed"][0].double())
    torch.testing.assert_close(
        encoder.extractor(HALVES, device=CPU)(clips), expected.float(), atol=1e-5, rtol=0
    )  # and no "pos_embed" among the layers


def test_the_transformers_class_has_these_kernels_too():
    pytest.importorskip("transformers")
    from splavu.extraction.encoders import videomae

    state = random_weights(mae_shapes(depth=3))
    encoder = videomae.from_official(state, TINY, num_heads=HEADS, image_size=16, num_frames=4)
    clips = levels()
    assert encoder.cpu_extractor(HALVES, "fp32") is not None
    features = encoder.extractor(HALVES, device=CPU)(clips)
    torch.testing.assert_close(features, encoder(normalise(clips, HALVES)), atol=1e-5, rtol=0)
    encoder.backbone.config.hidden_act = "relu"
    assert encoder.cpu_extractor(HALVES, "fp32") is None  # kernels of another function are not used


def test_bf16_rounds_products_only_and_errs_less_than_autocast():
    state, clips = random_weights(mae_shapes(depth=4)), levels(count=16)
    encoder = official(state)
    expected = slow_features(exact(state), pixels(clips, HALVES), HEADS, slow_sinusoid(8, WIDTH)).float()
    features = encoder.extractor(HALVES, device=CPU, precision="bf16")(clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = encoder(normalise(clips, HALVES)).float()
    error, usual = ((some - expected).square().mean().sqrt() for some in (features, autocast))
    assert features.dtype == torch.float32
    assert 1e-5 < error < usual


def test_clips_of_another_size_go_to_the_network_itself():
    """It knows what to do with them: here, to interpolate its positions."""
    encoder = official(random_weights(mae_shapes()))
    clips = levels(frames=8, side=24)
    expected = encoder(normalise(clips, HALVES))
    torch.testing.assert_close(encoder.extractor(HALVES, device=CPU)(clips), expected, atol=0, rtol=0)


def test_a_clip_does_not_see_its_batch_and_the_input_stays_as_it_is():
    clips = levels(count=5)
    before = clips.clone()
    extractor = official(random_weights(mae_shapes())).extractor(HALVES, device=CPU)
    torch.testing.assert_close(extractor(clips)[2:3], extractor(clips[2:3]), atol=1e-5, rtol=0)
    tiled = clips[:, :1].expand(-1, 4, -1, -1, -1)
    torch.testing.assert_close(extractor(tiled), extractor(tiled.contiguous()), atol=0, rtol=0)
    assert torch.equal(clips, before)


def test_other_encoders_are_normalised_for_and_called():
    class Mean(frozen.FrozenEncoder):
        spec = dataclasses.replace(TINY, feature_dim=3)

        def forward(self, clips):
            return clips.mean(dim=(1, 3, 4))

    clips = levels()
    expected = pixels(clips, HALVES).mean(dim=(1, 3, 4)).float()
    torch.testing.assert_close(Mean().extractor(HALVES, device=CPU)(clips), expected, atol=1e-5, rtol=0)
