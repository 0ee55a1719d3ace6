"""The encoder: its equation in slow loops, bits that depend on no batch, chunks that are the whole."""

import math

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.anonymizers import AffineAnonymizer, Chain, Continuation, EncoderAnonymizer, build_anonymizer

WIDTH, HEADS, WINDOW = 24, 4, 3


def random_encoder(seed=0, **options):
    torch.manual_seed(seed)
    options = {"num_layers": 2, "num_heads": HEADS, "window": WINDOW, "identity": False, **options}
    made = build_anonymizer("encoder", options.pop("width", WIDTH), **options)
    with torch.no_grad():
        for block in made.blocks:
            block.recency.normal_()
            for norm in (block.attention_norm, block.forward_norm):
                norm.weight.normal_(1, 0.3)
                norm.bias.normal_()
    return made.eval()


def slow_encoder(state, sequence):  # [T, D] -> [T, D], float64
    """Pre-norm blocks spelled out, a step and a head at a time."""
    state = {name: value.double() for name, value in state.items()}
    x = sequence.double()
    for layer in range(1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks"))):
        part = {name.split(".", 2)[2]: value for name, value in state.items() if name.startswith(f"blocks.{layer}.")}

        def norm(row, name, part=part):
            centered = row - row.mean()
            return centered / (centered.square().mean() + 1e-5).sqrt() * part[f"{name}.weight"] + part[f"{name}.bias"]

        def linear(row, name, part=part):
            return part[f"{name}.weight"] @ row + part[f"{name}.bias"]

        normed = [norm(row, "attention_norm") for row in x]
        attended = torch.zeros_like(x)
        for t in range(len(x)):
            for head in range(HEADS):
                columns = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                seen = range(max(0, t - WINDOW), t + 1)
                query = linear(normed[t], "query")[columns]
                scores = [
                    float(query @ linear(normed[s], "key")[columns]) / math.sqrt(WIDTH // HEADS)
                    + float(part["recency"][head, t - s])
                    for s in seen
                ]
                weights = np.exp(np.array(scores) - max(scores))
                for s, weight in zip(seen, weights / weights.sum(), strict=True):
                    attended[t, columns] += weight * linear(normed[s], "value")[columns]
        x = x + torch.stack([linear(row, "out") for row in attended])
        inner = torch.stack([linear(norm(row, "forward_norm"), "fc1") for row in x])
        x = x + torch.stack([linear(row * 0.5 * (1 + torch.erf(row / math.sqrt(2))), "fc2") for row in inner])
    if "narrow.weight" in state:
        x = (x @ state["narrow.weight"].T + state["narrow.bias"]) @ state["widen.weight"].T + state["widen.bias"]
    return x


@pytest.mark.parametrize("bottleneck", [None, 5])
def test_it_is_its_equation(bottleneck):
    made, sequence = random_encoder(bottleneck=bottleneck), torch.randn(9, WIDTH)
    expected = slow_encoder(made.state_dict(), sequence)
    tolerance = {"rtol": 1e-5, "atol": 2e-5}  # float32 against float64
    with torch.no_grad():
        torch.testing.assert_close(made(sequence[None])[0].double(), expected, **tolerance)
        torch.testing.assert_close(made.train()(sequence[None])[0].double(), expected, **tolerance)
        alone = torch.stack([slow_encoder(made.state_dict(), row[None])[0] for row in sequence])
        torch.testing.assert_close(made(sequence).double(), alone, **tolerance)


@pytest.mark.parametrize("width", [24, 192, 768])
def test_bits_are_those_of_a_feature_alone_and_of_a_sequence_alone(width):
    made = random_encoder(width=width, bottleneck=width // 4)
    rows, sequences = torch.randn(150, width), torch.randn(4, 70, width)
    mask = torch.arange(70) < torch.tensor([70, 3, 1, 65])[:, None]
    with torch.no_grad():
        together = made(rows)
        shuffled = torch.randperm(len(rows))
        assert torch.equal(made(rows[shuffled]), together[shuffled])
        assert torch.equal(made(rows[:, None])[:, 0], together)  # a lone feature is a sequence of one step
        for i in range(0, 150, 31):
            assert torch.equal(made(rows[i]), together[i])
        batched = made(sequences, mask)
        for i, length in enumerate((70, 3, 1, 65)):
            assert torch.equal(made(sequences[i : i + 1, :length])[0], batched[i, :length])
    assert torch.equal(batched[~mask], sequences[~mask])


@pytest.mark.parametrize("chunks", [(1,) * 40, (7, 1, 20, 12), (40,), (0, 39, 1)])
def test_a_video_that_goes_on_has_the_bits_of_the_whole(chunks):
    eraser = AffineAnonymizer(WIDTH, rank=3, method="pca")
    for made in (random_encoder(), Chain(WIDTH, stages=[eraser, random_encoder(bottleneck=6)]).eval()):
        video, going_on = torch.randn(40, WIDTH), Continuation(made)
        assert going_on.context == 2 * WINDOW
        with torch.no_grad():
            whole = made(video[None])[0]
            assert torch.equal(torch.cat([going_on(chunk) for chunk in video.split(list(chunks))]), whole)


def test_a_step_depends_on_its_context_and_on_nothing_else():
    made, video = random_encoder(), torch.randn(1, 30, WIDTH)
    video.requires_grad_()
    made(video)[0, 20].sum().backward()
    reached = video.grad[0].abs().sum(dim=1).nonzero()[:, 0]
    assert reached.tolist() == list(range(20 - made.context, 21))
    with refused("'transformer'"):
        Continuation(build_anonymizer("transformer", WIDTH))


def test_holes_in_a_mask_are_closed_in_training_as_in_evaluation_and_padding_spoils_no_gradient():
    made, sequences = random_encoder(), torch.randn(3, 12, WIDTH)
    mask = torch.rand(3, 12) < 0.6
    mask[0] = True
    with torch.no_grad():
        served = made(sequences, mask)
    sequences[~mask] = torch.nan
    trained = made.train()(sequences, mask)
    torch.testing.assert_close(trained[mask], served[mask], rtol=1e-5, atol=2e-5)
    trained[mask].sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_a_bottleneck_hides_what_lies_beyond_its_numbers():
    made = random_encoder(bottleneck=5)
    with torch.no_grad():
        released = made(torch.randn(400, WIDTH)).double()
    values = torch.linalg.svdvals(released - released.mean(dim=0))
    assert float(values[5] / values[0]) < 1e-6  # rounding to float32
    fresh, rows = build_anonymizer("encoder", WIDTH, num_heads=HEADS, bottleneck=5), torch.randn(50, WIDTH)
    basis = torch.linalg.qr(torch.randn(WIDTH, 5)).Q
    center = torch.randn(WIDTH)
    fresh.start_bottleneck(center, basis.T, basis)
    expected = center + (rows - center) @ basis @ basis.T
    torch.testing.assert_close(fresh(rows), expected, rtol=1e-5, atol=1e-5)


def test_a_lone_feature_is_not_mapped_affinely():
    """What the published adapter does to it (docs/honesty.md)."""
    made, (a, b) = random_encoder(), torch.randn(2, WIDTH)
    with torch.no_grad():
        middle = made((a + b) / 2)
        assert not torch.allclose(middle, (made(a) + made(b)) / 2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads"),
        ({"num_layers": 0}, "num_layers"),
        ({"window": -1}, "window"),
        ({"bottleneck": WIDTH}, "bottleneck"),
    ],
)
def test_bad_options_are_named(options, message):
    with refused(message):
        EncoderAnonymizer(WIDTH, **options)
