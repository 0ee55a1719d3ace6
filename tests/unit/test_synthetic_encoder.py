"""The demo encoder that travels with the package, and the parts of its pre-training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from splavu.synthetic.encoder import pretrain_encoder
from splavu.synthetic.encoder.pretrain_encoder import (
    build_model,
    close_ups,
    mark_presence,
    patch_targets,
    pooled,
    whiten_patches,
)
from splavu.synthetic.encoder.pretraining_clips import normalise, shrink
from splavu.synthetic.encoder.probe_encoder import HERE, load_encoder
from splavu.synthetic.people.motions import ACTIONS

pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return load_encoder()


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:  # [2, 16, 3, 80, 80]
    return normalise(torch.randint(0, 256, (2, 16, 3, 80, 80), generator=torch.Generator().manual_seed(0)))


def test_weights_are_small_and_fit_the_architecture_strictly() -> None:
    path = HERE / "model.safetensors"
    assert path.stat().st_size <= 8 * 2**20
    weights = safetensors.load_file(path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    build_model().load_state_dict(weights, strict=True)


def test_config_names_the_actions_in_label_order() -> None:
    config = json.loads((HERE / "config.json").read_text())
    assert [config["id2label"][str(label)] for label in range(len(ACTIONS))] == list(ACTIONS)


def test_features_are_finite_wide_and_not_constant(encoder: torch.nn.Module, clips: torch.Tensor) -> None:
    with torch.inference_mode():
        features = pooled(encoder, clips)
    assert features.shape == (2, 192)
    assert features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert (features[0] - features[1]).abs().max() > 1e-3
    assert features.std() > 0.1


def test_feature_is_what_the_classifier_reads(encoder: torch.nn.Module, clips: torch.Tensor) -> None:
    with torch.inference_mode():
        logits = encoder(clips).logits
        assert torch.allclose(encoder.classifier(pooled(encoder, clips)), logits, atol=1e-5)


def test_it_tells_most_rendered_actions_of_people_it_has_not_seen(encoder: torch.nn.Module) -> None:
    pytest.importorskip("cv2")
    from splavu.synthetic.layouts import film
    from splavu.synthetic.plans import sample_plans, sample_subjects

    plans = sample_plans(11, "encoder", sample_subjects(11, "encoder", 4), per_subject=6)
    small = torch.stack([shrink(film(plan, 11, "encoder", num_frames=16)) for plan in plans])  # [24, 16, 3, 80, 106]
    left = (small.shape[-1] - 80) // 2
    with torch.inference_mode():
        told = encoder(normalise(small[..., left : left + 80])).logits.argmax(dim=1).tolist()
    right = [ACTIONS[label] == plan.action for label, plan in zip(told, plans, strict=True)]
    assert np.mean(right) > 0.5, "chance is 1 in 12"


def test_patch_targets_are_the_averaged_pixels_of_each_token() -> None:
    clips = torch.rand(1, 16, 3, 80, 80)
    targets = patch_targets(clips).view(4, 5, 5, 3, 8, 8)
    for time, row, column in ((0, 0, 0), (2, 3, 1), (3, 4, 4)):
        patch = clips[0, 4 * time + 2, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        expected = torch.stack([patch[:, y : y + 2, x : x + 2].mean(dim=(1, 2)) for y in (0, 6) for x in (0, 6)])
        found = torch.stack([targets[time, row, column, :, y // 2, x // 2] for y in (0, 6) for x in (0, 6)])
        assert torch.allclose(found, expected, atol=1e-6)


def test_presence_marks_the_patch_that_holds_the_mark() -> None:
    marks = torch.full((1, 4, 24, 2), 5.0)  # outside the picture
    marks[0, 0] = torch.nan  # not there
    marks[0, 2, 7] = torch.tensor([-0.99, 0.99])  # third tubelet, left edge, bottom row
    marks[0, 1, 20] = torch.tensor([0.0, -0.99])  # second head of a group: the group's heads share a column
    presence = mark_presence(marks).view(4, 5, 5, 19)
    assert presence.sum() == 2
    assert presence[2, 4, 0, 7] == 1
    assert presence[1, 0, 2, 17] == 1


def test_close_ups_show_what_lies_at_the_joint() -> None:
    clips, marks = torch.zeros(1, 16, 3, 80, 80), torch.zeros(1, 4, 24, 2)
    clips[0, 10, 1, 0:22, 58:80] = 1.0  # green, 22 pixels wide around column 70, row 10
    marks[0, 2, 0] = torch.tensor([0.75, -0.75])
    head, trunk = close_ups(clips, marks).view(2, 3, 12, 12)
    assert torch.allclose(head[1], torch.ones(12, 12))  # up to the rounding of bilinear weights
    assert head[[0, 2]].max() == 0.0
    assert trunk.max() == 0.0


def test_whitened_patches_start_alike_in_scale_and_still_pictures_give_no_movement() -> None:
    model = build_model()
    clips = torch.randn(24, 16, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    whiten_patches(model, clips)
    embedding = model.videomae.embeddings.patch_embeddings
    with torch.inference_mode():
        tokens = embedding(clips).flatten(0, 1)
        still = embedding(clips[:, :1].expand(-1, 16, -1, -1, -1)).flatten(0, 1)
    assert tokens.mean(dim=0).abs().max() < 0.1
    assert tokens.std(dim=0).max() < 2 * tokens.std(dim=0).min()
    assert still[:, 128:].std(dim=0).max() < 1e-3
    assert not embedding.projection.weight.requires_grad


def test_shrink_keeps_proportions_and_means() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), dtype=np.uint8)
    small = shrink(frames)
    assert small.shape == (2, 3, 80, 106)
    assert small.float().mean() == pytest.approx(frames.mean(), abs=1.0)


def test_the_card_gives_command_figures_and_licence() -> None:
    card = Path(HERE, "README.md").read_text()
    for word in ("python -m splavu.synthetic.encoder.pretrain_encoder", "MIT", "cMAP", "top-1"):
        assert word in card


@pytest.mark.slow
def test_an_interrupted_pre_training_ends_as_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2")
    arguments = ["--steps", "4", "--save-every", "2", "--batch-size", "4", "--subjects", "2", "--per-subject", "2"]
    monkeypatch.setattr(pretrain_encoder, "WHITENING_CLIPS", 16)

    def run(folder: Path) -> None:
        pretrain_encoder.train(pretrain_encoder.parse([*arguments, "--workers", "1", "--out", str(folder)]))

    run(tmp_path / "whole")
    draw, calls = pretrain_encoder.draw_batch, []

    def stop_at_the_fourth_batch(*given: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 4:  # one for the whitening, two saved steps, then this
            raise KeyboardInterrupt
        return draw(*given, **options)

    monkeypatch.setattr(pretrain_encoder, "draw_batch", stop_at_the_fourth_batch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts")
    monkeypatch.setattr(pretrain_encoder, "draw_batch", draw)
    run(tmp_path / "parts")
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True)["pupil"] for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
