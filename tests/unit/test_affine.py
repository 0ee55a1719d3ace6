"""Erasers as anonymizers: the removed directions don't move a bit, and noise and chains serve each feature alone."""

import hashlib

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.anonymizers import AffineAnonymizer, Chain, GaussianNoise, Quantizer, build_anonymizer, one_by_one
from splavu.anonymizers.loading import load_anonymizer
from splavu.anonymizers.noise import standard_normal
from splavu.runtime import checkpoints

WIDTH = 48


def oblique(rank: int, width: int = WIDTH, seed: int = 0) -> tuple[AffineAnonymizer, np.ndarray, np.ndarray]:
    """An eraser of `rank` directions, its matrix and center in float64."""
    rng = np.random.default_rng(seed)
    removed, read = rng.normal(size=(2, width, rank))
    matrix = np.eye(width) - removed @ np.linalg.solve(read.T @ removed, read.T)  # matrix @ removed = 0
    left, values, right = np.linalg.svd(matrix)
    kept, center = width - rank, rng.normal(size=width)
    made = AffineAnonymizer.of(center, right[:kept], left[:, :kept] * values[:kept], method="eraser")
    return made.eval(), matrix, center


def every_kind() -> dict:
    rng = np.random.default_rng(1)
    eraser = oblique(5)[0]
    books = [rng.normal(size=(7, 6)), rng.normal(size=(4, 6)) * 0.3]
    inward = np.linalg.qr(rng.normal(size=(WIDTH, 6)))[0].T
    quantizer = Quantizer.of(np.zeros(WIDTH), inward, inward.T, books)
    noise = GaussianNoise.of(rng.uniform(0.5, 2, WIDTH), sd=0.7, seed=3)
    whitened = GaussianNoise.of(np.cov(rng.normal(size=(WIDTH, 200))), sd=0.7)
    return {
        "affine": eraser,
        "quantizer": quantizer,
        "noise": noise,
        "whitened": whitened,
        "chain": Chain(WIDTH, stages=[eraser, quantizer, noise]),
    }


def test_it_is_the_map_it_was_given():
    made, matrix, center = oblique(5)
    rows = torch.randn(9, WIDTH, dtype=torch.double)
    expected = center + (rows.numpy() - center) @ matrix.T
    np.testing.assert_allclose(made(rows).numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(made.weight.numpy(), matrix, atol=1e-5)
    np.testing.assert_allclose((rows @ made.weight.T + made.bias).numpy(), expected, rtol=0, atol=1e-5)
    assert made.architecture == {"arch": "affine", "feature_dim": WIDTH, "rank": 5, "method": "eraser"}


def test_a_removed_direction_moves_no_bit():
    made, _, _ = oblique(16)
    rows = torch.randn(64, WIDTH, dtype=torch.double)
    # The kernel of the matrix that is applied, found apart: its float32 numbers taken for exact.
    kernel = torch.from_numpy(np.linalg.svd(made.inward.double().numpy())[2][WIDTH - 16 :])  # [r, D]
    moved = rows + 10 * torch.randn(64, 16, dtype=torch.double) @ kernel
    assert (moved - rows).norm(dim=1).min() > 10
    assert torch.equal(made(rows).float(), made(moved).float())


def test_roundings_tell_nothing_of_what_was_removed_where_a_dense_float32_matrix_does():
    """Least squares on what is left in the directions that should be empty, learnt on half of the rows. What is removed
    has thirty times the spread of the rest."""
    made, matrix, center = oblique(16)
    rows = (
        torch.randn(4000, WIDTH)
        + 30 * torch.randn(4000, 16) @ torch.from_numpy(np.linalg.svd(matrix)[2][WIDTH - 16 :]).float()
    )
    removed = rows.double().numpy() @ np.linalg.svd(matrix)[2][WIDTH - 16 :].T
    empty = np.linalg.svd(matrix)[0][:, WIDTH - 16 :]
    dense, shift = torch.from_numpy(matrix).float(), torch.from_numpy(center - matrix @ center).float()
    explained = {}
    for name, released in (("dense", rows @ dense.T + shift), ("factored", made(rows))):
        left = (released.double().numpy() - center) @ empty
        left = (left - left.mean(0)) / left.std(0)
        guessed = left[2000:] @ np.linalg.lstsq(left[:2000], removed[:2000], rcond=None)[0]
        explained[name] = 1 - np.square(removed[2000:] - guessed).sum() / np.square(removed[2000:]).sum()
    assert explained["dense"] > 0.05
    assert explained["factored"] < 0.01


def test_it_has_gradients_but_nothing_to_train():
    made = oblique(5)[0].train()
    rows = torch.randn(4, WIDTH, requires_grad=True)
    upstream = torch.randn(4, WIDTH)
    (gradient,) = torch.autograd.grad(made(rows), rows, upstream)
    torch.testing.assert_close(gradient, upstream @ made.weight.float(), rtol=1e-4, atol=1e-5)
    assert not list(made.parameters())


@pytest.mark.parametrize("kind", every_kind())
def test_a_feature_has_the_same_bits_alone_in_a_batch_and_in_a_sequence(kind):
    made, rows = every_kind()[kind].eval(), torch.randn(150, WIDTH)
    with torch.no_grad():
        together = made(rows)
        shuffled = torch.randperm(len(rows))
        assert torch.equal(made(rows[shuffled]), together[shuffled])
        assert torch.equal(made(rows.view(2, 75, WIDTH)), together.view(2, 75, WIDTH))
        assert torch.equal(one_by_one(made, rows), together)
        for i in range(0, 150, 11):
            assert torch.equal(made(rows[i]), together[i])
    assert not torch.equal(together, rows)


@pytest.mark.parametrize("kind", every_kind())
def test_a_checkpoint_brings_it_back_bit_for_bit(kind, tmp_path):
    made, rows = every_kind()[kind].eval(), torch.randn(70, WIDTH)
    content = {"fa_model_state_dict": made.state_dict(), "fa_architecture": made.architecture}
    path = checkpoints.write(tmp_path / "made.pth", content)
    back = load_anonymizer(path).eval()
    assert type(back) is type(made)
    assert back.architecture == made.architecture
    with torch.no_grad():
        assert torch.equal(back(rows), made(rows))


@pytest.mark.parametrize("units", ["dimension", "whitened"])
def test_noise_has_the_stated_spread_and_belongs_to_the_feature(units):
    rng = np.random.default_rng(0)
    covariance = np.cov(rng.normal(size=(4, 30)))
    values, vectors = np.linalg.eigh(covariance)
    root = np.sqrt(np.diag(covariance)) if units == "dimension" else (vectors * np.sqrt(values)) @ vectors.T
    made = GaussianNoise.of(root, sd=0.5, seed=1).eval()
    rows = torch.randn(20000, 4)
    added = (made(rows) - rows).numpy()
    expected = 0.25 * (np.diag(np.diag(covariance)) if units == "dimension" else covariance)
    np.testing.assert_allclose(np.cov(added.T), expected, atol=0.02 * covariance.max())
    np.testing.assert_allclose(added.mean(axis=0), 0, atol=0.02)
    assert np.abs(np.corrcoef(np.hstack([added, rows.numpy()]).T)[:4, 4:]).max() < 0.03

    other = GaussianNoise.of(root, sd=0.5, seed=2).eval()
    assert not torch.isclose(other(rows[:50]), made(rows[:50])).all(dim=1).any()
    assert not torch.equal(GaussianNoise.of(root, sd=0.5).key, GaussianNoise.of(root, sd=0.5).key)
    made.train()
    assert not torch.equal(made(rows[:5]), made(rows[:5]))


def test_the_mean_of_a_video_has_less_noise_by_the_root_of_its_clips():
    made = GaussianNoise.of(np.ones(3), sd=1.0, seed=0).eval()
    clips = torch.randn(1000, 16, 3)
    noise = (made(clips) - clips).mean(dim=1)
    assert abs(float(noise.std()) - 1 / 4) < 0.02


def test_minus_zero_is_zero():
    made = GaussianNoise.of(np.ones(3), sd=1.0, seed=0).eval()
    assert torch.equal(made(torch.tensor([[0.0, 1, 2]])), made(torch.tensor([[-0.0, 1, 2]])))


def test_normal_numbers_are_box_and_mullers_of_a_hash():
    words = np.frombuffer(hashlib.shake_256(b"name").digest(32), dtype="<u8")
    first, second, third, fourth = [((int(word) >> 11) + 1) / 2**53 for word in words]
    expected = [
        np.sqrt(-2 * np.log(first)) * np.cos(2 * np.pi * third),
        np.sqrt(-2 * np.log(second)) * np.cos(2 * np.pi * fourth),
        np.sqrt(-2 * np.log(first)) * np.sin(2 * np.pi * third),
    ]
    np.testing.assert_allclose(standard_normal(b"name", 3), expected, rtol=1e-12)


def test_a_chain_is_its_stages_in_order_and_takes_chains_apart():
    kinds = every_kind()
    rows = torch.randn(10, WIDTH)
    nested = Chain(WIDTH, stages=[Chain(WIDTH, stages=[kinds["affine"], kinds["quantizer"]]), kinds["noise"]]).eval()
    with torch.no_grad():
        expected = kinds["noise"].eval()(kinds["quantizer"].eval()(kinds["affine"](rows)))
        assert torch.equal(nested(rows), expected)
    assert [stage["arch"] for stage in nested.architecture["stages"]] == ["affine", "quantizer", "noise"]
    assert "key" not in str(nested.architecture)


def test_a_chain_with_a_network_can_be_trained():
    made = Chain(WIDTH, stages=[oblique(5)[0], build_anonymizer("mlp", WIDTH)]).train()
    made(torch.randn(4, 3, WIDTH), torch.ones(4, 3, dtype=torch.bool)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_bad_options_are_named():
    with refused("rank"):
        AffineAnonymizer(WIDTH, rank=WIDTH)
    with refused("sd"):
        GaussianNoise(WIDTH, sd=-1)
    with refused("units"):
        GaussianNoise(WIDTH, units="metre")
    with refused("stages"):
        Chain(WIDTH, stages=[build_anonymizer("identity", 7)])
    with refused("stages"):
        Chain(WIDTH, stages=[build_anonymizer("transformer", WIDTH, attends_over="batch")])
