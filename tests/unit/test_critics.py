"""Critics and the terms within a class: slow loops, the information of a Gaussian, resets, resume to the bit."""

import math

import pytest
import torch
from refusals import refused

from splavu.training.contrastive import class_residuals, conditional_contrast, conditional_infonce
from splavu.training.critics import Critic, standardised
from splavu.training.objectives import RelativeConsistency

WIDTH = 6


def slow_information(scores, classes):
    told = []
    for i in range(len(scores)):
        rivals = [j for j in range(len(scores)) if classes[j] == classes[i]]
        if len(rivals) > 1:
            others = sum(math.exp(scores[i][j]) for j in rivals)
            told.append(math.log(len(rivals)) + scores[i][i] - math.log(others))
    return sum(told) / len(told)


def test_information_and_contrast_are_their_loops():
    torch.manual_seed(0)
    classes = torch.tensor([0, 1, 0, 2, 1, 0, 1, 0])  # class 2 is alone
    scores = torch.randn(8, 8).double()
    expected = slow_information(scores.tolist(), classes.tolist())
    assert float(conditional_infonce(scores, classes)) == pytest.approx(expected, rel=1e-12)

    clips, pictures = torch.randn(2, 8, WIDTH)
    cosines = [[0.0] * 8 for _ in range(8)]
    for i in range(8):
        for j in range(8):
            a = clips[i] - clips[classes == classes[i]].mean(dim=0)
            b = pictures[j] - pictures[classes == classes[j]].mean(dim=0)
            cosines[i][j] = float(a @ b / max(1e-8, float(a.norm()) * float(b.norm()))) / 0.1
    expected = slow_information(cosines, classes.tolist())
    found = conditional_contrast(clips, pictures, classes, temperature=0.1)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_what_pictures_say_of_the_action_is_not_information():
    torch.manual_seed(0)
    classes = torch.arange(600) % 3
    action = 5 * torch.randn(3, WIDTH)[classes]
    clips, pictures = action + torch.randn(600, WIDTH), action + torch.randn(600, WIDTH)
    assert abs(float(conditional_contrast(clips, pictures, classes, temperature=1.0))) < 0.1
    assert float(conditional_contrast(clips, pictures, torch.zeros(600), temperature=1.0)) > 0.3


def test_a_lonely_class_and_no_rows_are_zero_with_a_finite_gradient():
    clips = torch.randn(3, WIDTH, requires_grad=True)
    found = conditional_contrast(clips, torch.randn(3, WIDTH), torch.tensor([0, 1, 2]))
    found.backward()
    assert float(found.detach()) == 0
    assert not clips.grad.any()
    assert float(conditional_infonce(torch.zeros(0, 0), torch.zeros(0))) == 0


def gaussians(correlation, *, seed, num=256):
    """Clips and pictures with I = -1/2 log(1 - correlation^2) nats in each of 2 dimensions, in other coordinates."""
    generator = torch.Generator().manual_seed(seed)
    common, own, noise = torch.randn(3, num, WIDTH, generator=generator)
    clips = correlation * common + math.sqrt(1 - correlation**2) * own
    clips[:, 2:] = noise[:, 2:]
    mixed = clips @ torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))).Q
    classes = torch.arange(num) % 2
    return mixed * 1e-2 + 3 * classes[:, None], common, classes


def test_critics_find_what_is_there_and_no_more():
    """In coordinates, and at a scale, in which cosines see nothing."""
    correlation = 0.9
    truth = -math.log(1 - correlation**2)  # two dimensions
    critic = Critic.of(WIDTH, num_critics=2, hidden=64, embedding=16, learning_rate=3e-3, seed=0)
    for step in range(150):
        critic.update(*gaussians(correlation, seed=step))
    found = sum(float(critic.information(*gaussians(correlation, seed=10_000 + i)).detach()) for i in range(8)) / 8
    assert 0.5 * truth < found < truth + 0.1
    independent = Critic.of(WIDTH, hidden=64, embedding=16, learning_rate=3e-3)
    for step in range(50):
        independent.update(*gaussians(0.0, seed=step))
    assert abs(sum(float(independent.information(*gaussians(0.0, seed=10_000 + i))) for i in range(8)) / 8) < 0.1


def test_information_reaches_the_clips_and_no_critic_and_the_engine_steps_none():
    critic = Critic.of(WIDTH, hidden=8, embedding=4)
    before = {name: value.clone() for name, value in critic.network.state_dict().items()}
    clips, pictures, classes = gaussians(0.9, seed=0)
    clips.requires_grad_()
    critic.information(clips, pictures, classes).backward()
    assert clips.grad.any()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in critic.network.parameters())
    critic.step()
    assert all(torch.equal(before[name], value) for name, value in critic.network.state_dict().items())
    critic.update(clips, pictures, classes)
    assert not all(torch.equal(before[name], value) for name, value in critic.network.state_dict().items())
    assert all(parameter.grad is None for parameter in critic.network.parameters())


def test_critics_begin_anew_in_turn_and_alike_whatever_was_drawn():
    critic = Critic.of(WIDTH, num_critics=2, reset_every=2, hidden=8, embedding=4, seed=5)
    critic.update(*gaussians(0.9, seed=0))
    members = critic.network.members

    def weights():
        return [member.clips[0].weight.detach().clone() for member in members]

    start = weights()
    critic.end_epoch()
    assert all(torch.equal(a, b) for a, b in zip(start, weights(), strict=True))
    drawn = torch.get_rng_state()
    critic.end_epoch()
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not torch.equal(weights()[0], start[0])
    assert torch.equal(weights()[1], start[1])
    assert len(critic.optimizer.state) == len(list(members[1].parameters()))  # the new one remembers nothing
    torch.randn(7)
    other = Critic.of(WIDTH, num_critics=2, reset_every=1, hidden=8, embedding=4, seed=5)
    other.end_epoch()
    assert torch.equal(other.network.members[0].clips[0].weight, weights()[0])
    critic.end_epoch()
    critic.end_epoch()
    assert not torch.equal(weights()[1], start[1])


def test_a_critic_goes_on_where_it_was():
    whole, parts = (Critic.of(WIDTH, reset_every=2, hidden=8, embedding=4) for _ in range(2))
    for step in range(6):
        whole.update(*gaussians(0.9, seed=step))
        whole.end_epoch()
        parts.update(*gaussians(0.9, seed=step))
        parts.end_epoch()
        if step == 2:
            weights, state = parts.network.state_dict(), parts.state()
            parts = Critic.of(WIDTH, reset_every=2, hidden=8, embedding=4)
            parts.network.load_state_dict(weights)
            parts.load_state(state)
    assert all(
        torch.equal(value, parts.network.state_dict()[name]) for name, value in whole.network.state_dict().items()
    )


def test_shrinking_a_dimension_hides_nothing():
    rows, classes = torch.randn(40, WIDTH), torch.arange(40) % 2
    scales = torch.tensor([1.0, 0.1, 3.0, 1e-2, 0.5, 2.0])
    torch.testing.assert_close(standardised(rows * scales, classes), standardised(rows, classes), rtol=1e-3, atol=1e-3)
    assert not standardised(torch.ones(4, WIDTH), torch.zeros(4)).any()
    residuals = class_residuals(rows, classes)
    for value in (0, 1):
        assert residuals[classes == value].mean(dim=0).abs().max() < 1e-6


def test_relative_consistency_is_the_same_for_every_scale_of_features():
    raw = torch.randn(50, WIDTH)
    safe = raw + 0.1 * torch.randn(50, WIDTH)
    of_one, of_thousand = RelativeConsistency(2.0), RelativeConsistency(2.0 * 1000**2)
    assert float(of_one(safe, raw)) == pytest.approx(float(((safe - raw) ** 2).mean()) / 2, rel=1e-6)
    assert float(of_thousand(1000 * safe, 1000 * raw)) == pytest.approx(float(of_one(safe, raw)), rel=1e-5)
    assert float(of_one(safe, raw, reduction="sum")) == pytest.approx(raw.numel() * float(of_one(safe, raw)), rel=1e-5)
    with refused("consistency"):
        RelativeConsistency(0.0)
