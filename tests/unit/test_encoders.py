"""The encoder table: the names that files and params use, and the encoders that run here."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest
import torch
from refusals import refused

from splavu.data.encoders import ENCODERS, EncoderSpec, Preprocessing, encoder_spec

transformers = pytest.importorskip("transformers")

from splavu.extraction.encoders import load_encoder  # noqa: E402  needs transformers


@pytest.mark.parametrize(
    ("name", "tag", "width"),
    [
        ("videoMAE", "mae", 768),
        ("i3d", "i3d", 1024),
        ("largei3d", "largei3d", 2048),
        ("vjepa", "vjepa", 1280),
        ("maev2", "maev2", 1408),
        ("videoMAE-large", "maelarge", 1024),
        ("videoMAE-huge", "maehuge", 1280),
        ("vjepa-large", "vjepalarge", 1024),
        ("demo", "demo", 192),
    ],
)
def test_names_and_widths_of_published_stores(name, tag, width):
    spec = encoder_spec(name)
    assert (spec.file_tag, spec.feature_dim, spec.num_frames) == (tag, width, 16)


def test_file_tags_do_not_collide():
    assert len({spec.file_tag for spec in ENCODERS.values()}) == len(ENCODERS)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("videomae", "videoMAE"), ("videomae-LARGE", "videoMAE-large"), ("vjepa-larg", "vjepa-large")],
)
def test_unknown_name_offers_the_nearest(wrong, right):
    with refused(f"encoder '{wrong}'", naming=f"'{right}'"):
        encoder_spec(wrong)


def test_crop_larger_than_the_frame_is_refused():
    with pytest.raises(ValueError, match="224"):
        Preprocessing(short_side=200, crop=224)


def save_videomae(folder, *, width=192, image_size=32, **changes):
    """A VideoMAE with random weights, one block deep."""
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=image_size,
        patch_size=16,
        num_frames=16,
        tubelet_size=4,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=2 * width,
        num_labels=3,
        **{"use_mean_pooling": True} | changes,
    )
    transformers.VideoMAEForVideoClassification(config).save_pretrained(folder)
    return folder


def test_batch_does_not_change_a_feature(tmp_path):
    encoder = load_encoder("demo", str(save_videomae(tmp_path)))
    clips = torch.randn(5, 16, 3, 32, 32)
    together = encoder(clips)
    alone = torch.cat([encoder(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)  # float rounding
    assert together.shape == (5, 192)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_spec_follows_the_weights_and_they_stay_frozen(tmp_path):
    encoder = load_encoder("demo", str(save_videomae(tmp_path, image_size=48)))
    assert (encoder.spec.preprocessing.short_side, encoder.spec.preprocessing.crop) == (48, 48)
    assert not encoder.train().training
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_hash_tells_weights_apart(tmp_path):
    folder = str(save_videomae(tmp_path))
    first, second = load_encoder("demo", folder), load_encoder("demo", folder)
    assert first.weights_hash == second.weights_hash
    third = load_encoder("demo", folder)
    third.fc_norm.weight[0] += 1e-3
    assert third.weights_hash != first.weights_hash


def test_wrong_weights_are_refused(tmp_path):
    with refused("narrow"):
        load_encoder("demo", str(save_videomae(tmp_path / "narrow", width=96)))
    with refused("first_token"):
        load_encoder("demo", str(save_videomae(tmp_path / "first_token", use_mean_pooling=False)))
    with refused("test_wrong_weights_are_refused0"):
        load_encoder("demo", str(tmp_path))
    with refused("nowhere"):
        load_encoder("demo", str(tmp_path / "nowhere"))


def test_a_missing_weight_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    weights = save_videomae(tmp_path) / "model.safetensors"
    state = load_file(weights)
    lost = next(name for name in state if name.endswith(("query.bias", "q_bias")))
    save_file({name: value for name, value in state.items() if name != lost}, weights, metadata={"format": "pt"})
    with refused("test_a_missing_weight_is_refus0"):
        load_encoder("demo", str(tmp_path))


@pytest.mark.parametrize("name", ENCODERS)
def test_every_row_names_a_loader_that_is_there(name):
    assert callable(pkgutil.resolve_name(ENCODERS[name].loader))


TOY_ENCODER = """
import torch
from splavu.data.encoders import EncoderSpec, Preprocessing
from splavu.extraction.encoders import FrozenEncoder

ROW = EncoderSpec("toy", "toy", 3, "toy_encoder:load", preprocessing=Preprocessing(short_side=8, crop=8))

class Toy(FrozenEncoder):
    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.freeze()
    def forward(self, clips):
        return clips.mean((1, 3, 4))

def load(spec, weights):
    return Toy(spec)
"""


def test_another_package_adds_an_encoder(tmp_path):
    """A row and a loader in an installed package are all that `--encoder toy` needs."""
    (tmp_path / "toy_encoder.py").write_text(TOY_ENCODER)
    package = tmp_path / "toy_encoder-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-encoder\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[splavu.encoders]\ntoy = toy_encoder:ROW\n")
    program = """
import sys, torch
from splavu.data.encoders import ENCODERS
assert ENCODERS["demo"].name == "demo" and "toy" in ENCODERS and "toy_encoder" not in sys.modules
from splavu.extraction.encoders import load_encoder
print(load_encoder("toy")(torch.ones(2, 16, 3, 8, 8)).tolist())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout == "[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]\n", done.stderr


def test_a_loader_that_cannot_be_imported_is_one_line(monkeypatch):
    monkeypatch.setattr(
        "splavu.extraction.encoders.encoder_spec", lambda name: EncoderSpec(name, name, 3, "nowhere:load")
    )
    with refused("encoder 'toy'"):
        load_encoder("toy")


def test_hub_without_connection_is_one_line(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(transformers.VideoMAEForVideoClassification, "from_pretrained", offline)
    with refused("MCG-NJU/videomae-base-finetuned-kinetics"):
        load_encoder("videoMAE")


def test_shipped_demo_encoder_runs():
    encoder = load_encoder("demo")
    features = encoder(torch.randn(2, 16, 3, 80, 80))
    assert features.shape == (2, 192)
    assert torch.isfinite(features).all()
