"""The demo encoder that travels with the package, and the parts of its pre-training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from splavu.synthetic.motions import ACTIONS
from splavu.synthetic.pretrain_encoder import build_model, joint_presence, patch_targets, pooled
from splavu.synthetic.pretraining_clips import normalise, shrink
from splavu.synthetic.probe_encoder import HERE, load_encoder

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


def test_joint_presence_marks_the_patch_that_holds_the_joint() -> None:
    joints = torch.full((1, 4, 13, 2), 5.0)  # outside the picture
    joints[0, 2, 7] = torch.tensor([-0.99, 0.99])  # third tubelet, left edge, bottom row
    presence = joint_presence(joints).view(4, 5, 5, 13)
    assert presence.sum() == 1
    assert presence[2, 4, 0, 7] == 1


def test_shrink_keeps_proportions_and_means() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), dtype=np.uint8)
    small = shrink(frames)
    assert small.shape == (2, 3, 80, 106)
    assert small.float().mean() == pytest.approx(frames.mean(), abs=1.0)


def test_the_card_gives_command_figures_and_licence() -> None:
    card = Path(HERE, "README.md").read_text()
    for word in ("python -m splavu.synthetic.pretrain_encoder", "MIT", "cMAP", "top-1"):
        assert word in card
