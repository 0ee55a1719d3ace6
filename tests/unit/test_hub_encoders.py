"""Models of the transformers library as encoders: random weights in folders, no network."""

from __future__ import annotations

import json

import pytest
import torch
from refusals import refused

transformers = pytest.importorskip("transformers")

from splavu.data.encoders import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from splavu.extraction.encoders import load_encoder  # noqa: E402  needs transformers

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_vjepa2(folder, *, model="VJEPA2Model", **changes):
    torch.manual_seed(0)
    predictor = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    config = transformers.VJEPA2Config(patch_size=8, crop_size=32, frames_per_clip=8, **SMALL, **predictor, **changes)
    getattr(transformers, model)(config).save_pretrained(folder)
    return folder


def save_timesformer(folder):
    torch.manual_seed(0)
    config = transformers.TimesformerConfig(image_size=32, patch_size=8, num_frames=4, intermediate_size=32, **SMALL)
    transformers.TimesformerModel(config).save_pretrained(folder)
    return folder


def save_vivit(folder):
    torch.manual_seed(0)
    config = transformers.VivitConfig(
        image_size=32, num_frames=4, tubelet_size=[2, 8, 8], intermediate_size=32, **SMALL
    )
    transformers.VivitModel(config).save_pretrained(folder)
    return folder


def save_videomae(folder, *, width=24, heads=2, **changes):
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=16,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=heads,
        intermediate_size=32,
        **changes,
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    return folder


def write_processor(folder, name="preprocessor_config.json", **values):
    (folder / name).write_text(json.dumps(values))


def test_vjepa2_stores_the_mean_of_its_tokens(tmp_path):
    folder = save_vjepa2(tmp_path)
    write_processor(
        folder,
        "video_preprocessor_config.json",
        size={"shortest_edge": 36},
        crop_size={"height": 32, "width": 32},
        image_mean=IMAGENET_MEAN,
        image_std=IMAGENET_STD,
    )
    encoder = load_encoder("vjepa2", str(folder))
    clips = torch.randn(2, 16, 3, 32, 32)
    with torch.no_grad():
        expected = transformers.VJEPA2Model.from_pretrained(folder).eval()(clips).last_hidden_state.mean(1)
    torch.testing.assert_close(encoder(clips), expected, atol=1e-6, rtol=0)
    assert (encoder.spec.num_frames, encoder.spec.feature_dim) == (16, 24)
    assert (encoder.spec.preprocessing.short_side, encoder.spec.preprocessing.crop) == (36, 32)
    assert not any("predictor" in name for name in encoder.state_dict())


def test_a_vjepa2_classifier_gives_the_features_of_its_base(tmp_path):
    encoder = load_encoder("vjepa2", str(save_vjepa2(tmp_path, model="VJEPA2ForVideoClassification")))
    assert encoder(torch.randn(1, 16, 3, 32, 32)).shape == (1, 24)


@pytest.mark.parametrize(
    ("save", "frames"),
    [(save_vjepa2, 8), (save_timesformer, 4), (save_vivit, 4)],
    ids=["vjepa2", "timesformer", "vivit"],
)
def test_any_video_model_runs_with_its_own_frames(tmp_path, save, frames):
    folder = save(tmp_path)
    encoder = load_encoder("hf", str(folder))
    assert (encoder.spec.num_frames, encoder.spec.feature_dim, encoder.spec.preprocessing.crop) == (frames, 24, 32)
    assert not encoder.train().training
    clips = torch.randn(3, frames, 3, 32, 32)
    together = encoder(clips)
    with torch.no_grad():
        expected = transformers.AutoModel.from_pretrained(folder).eval()(clips)[0].mean(1)
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(together[1:2], encoder(clips[1:2]), atol=1e-5, rtol=0)


def test_two_models_of_one_encoder_have_different_hashes(tmp_path):
    first = load_encoder("hf", str(save_vivit(tmp_path / "a")))
    second = load_encoder("hf", str(save_timesformer(tmp_path / "b")))
    assert first.weights_hash != second.weights_hash


def test_a_processor_that_maps_to_plus_minus_one_first_is_followed(tmp_path):
    """ViViT's: x / 127.5 - 1, and then its mean and standard deviation."""
    folder = save_vivit(tmp_path)
    write_processor(
        folder,
        size={"shortest_edge": 40},
        crop_size={"height": 32, "width": 32},
        rescale_factor=1 / 127.5,
        offset=True,
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.5, 0.6, 0.7],
    )
    rule = load_encoder("hf", str(folder)).spec.preprocessing
    for level in (0, 100, 255):
        theirs = [(level / 127.5 - 1 - m) / s for m, s in zip([0.5, 0.4, 0.3], [0.5, 0.6, 0.7], strict=True)]
        ours = [(level / 255 - m) / s for m, s in zip(rule.mean, rule.std, strict=True)]
        assert ours == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, (32, 32)),
        ({"size": 40, "crop_size": 32}, (40, 32)),
        ({"video_processor": {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}}}, (48, 32)),
    ],
)
def test_sizes_are_read_in_every_form(tmp_path, processor, expected):
    folder = save_timesformer(tmp_path)
    name = "processor_config.json" if "video_processor" in processor else "preprocessor_config.json"
    write_processor(folder, name, **processor)
    rule = load_encoder("hf", str(folder)).spec.preprocessing
    assert (rule.short_side, rule.crop) == expected


def test_without_a_processor_a_warning_tells_what_is_done(tmp_path, caplog):
    rule = load_encoder("hf", str(save_timesformer(tmp_path))).spec.preprocessing
    assert (rule.short_side, rule.crop, rule.mean) == (36, 32, IMAGENET_MEAN)  # 32 * 256 / 224
    assert "processor" in caplog.text


def test_models_that_give_no_tokens_of_clips_are_refused(tmp_path):
    text = transformers.BertConfig(vocab_size=9, intermediate_size=8, **SMALL)
    transformers.BertModel(text).save_pretrained(tmp_path / "text")
    with refused("text"):
        load_encoder("hf", str(tmp_path / "text"))
    image = transformers.ViTConfig(image_size=32, patch_size=8, intermediate_size=8, **SMALL)
    transformers.ViTModel(image).save_pretrained(tmp_path / "image")
    with refused("image"):
        load_encoder("hf", str(tmp_path / "image"))
    convolutional = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    transformers.ResNetModel(convolutional).save_pretrained(tmp_path / "maps")
    with refused("maps"):
        load_encoder("hf", str(tmp_path / "maps"))
    with refused("text"):
        load_encoder("vjepa2", str(tmp_path / "text"))


def test_weights_that_cannot_be_loaded_are_one_line(tmp_path, monkeypatch):
    with refused("--weights"):
        load_encoder("hf")
    with refused("nowhere"):
        load_encoder("hf", str(tmp_path / "nowhere"))
    with refused("test_weights_that_cannot_be_lo0"):
        load_encoder("hf", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    with refused("facebook/vjepa2-vitl-fpc64-256"):
        load_encoder("vjepa2")


def test_a_lost_weight_is_refused_unless_it_comes_after_the_tokens(tmp_path):
    from safetensors.torch import load_file, save_file

    file = save_vivit(tmp_path) / "model.safetensors"
    state = load_file(file)
    kept = {name: weight for name, weight in state.items() if "pooler" not in name}
    assert len(kept) < len(state)
    save_file(kept, file, metadata={"format": "pt"})
    hashes = {load_encoder("hf", str(tmp_path)).weights_hash for _ in range(2)}
    assert len(hashes) == 1
    lost = next(name for name in kept if "layernorm" in name)
    save_file({name: weight for name, weight in kept.items() if name != lost}, file, metadata={"format": "pt"})
    with refused("test_a_lost_weight_is_refused_0"):
        load_encoder("hf", str(tmp_path))


# Defects of the library's VideoMAE (specification: videomae, section 7)


def test_a_videomae_whose_norm_the_base_model_lacks_is_sent_to_its_own_encoder(tmp_path):
    with refused("mean"):
        load_encoder("hf", str(save_videomae(tmp_path / "mean", use_mean_pooling=True)))
    normed = load_encoder("hf", str(save_videomae(tmp_path / "token", use_mean_pooling=False)))  # has a final norm
    assert normed.spec.feature_dim == 24


def test_videomae_norms_have_the_official_epsilon_whatever_the_folder_says(tmp_path):
    folder = save_videomae(tmp_path, width=1024, heads=16, use_mean_pooling=True, layer_norm_eps=1e-3)
    encoder = load_encoder("videoMAE-large", str(folder))
    assert {module.eps for module in encoder.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


def test_a_large_videomae_has_a_row_of_its_own(tmp_path):
    folder = str(save_videomae(tmp_path, width=1024, heads=16, use_mean_pooling=True))
    encoder = load_encoder("videoMAE-large", folder)
    assert encoder(torch.randn(2, 16, 3, 32, 32)).shape == (2, 1024) == (2, encoder.spec.feature_dim)
    with refused("test_a_large_videomae_has_a_ro0"):
        load_encoder("videoMAE", folder)


def test_a_store_is_told_the_hub_name_and_revision_where_there_are_any(tmp_path):
    from splavu.extraction.encoders.hub import hub_origin
    from splavu.extraction.provenance import provenance

    known = {"weights_hub": "owner/some-model", "weights_revision": "0a1b2c"}
    config = transformers.VJEPA2Config()
    config._commit_hash = "0a1b2c"
    assert hub_origin("owner/some-model", config) == known
    assert hub_origin("owner/some-model", transformers.VJEPA2Config())["weights_revision"] == "unknown"
    cache = tmp_path / "models--owner--some-model" / "snapshots" / "0a1b2c"
    cache.mkdir(parents=True)
    for name, folder, save in (("vjepa2", cache, save_vjepa2), ("hf", tmp_path / "plain", save_vjepa2)):
        encoder = load_encoder(name, str(save(folder)))
        attributes = provenance(
            encoder, preprocessing=encoder.spec.preprocessing, decoder="none", precision="fp32", clip_rule={}
        )
        told = {key: value for key, value in attributes.items() if key in known}
        assert told == (known if folder == cache else {})
