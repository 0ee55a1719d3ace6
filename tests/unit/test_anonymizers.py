import math

import pytest
import torch
from refusals import refused

from splavu import anonymizers
from splavu.anonymizers import ANONYMIZERS, build_anonymizer, infer_architecture, one_by_one

WIDTH, HEADS = 24, 4


def slow_transformer(state, sequence):  # [S, D] -> [S, D], float64
    """The paper's AAM spelled out: for every step and head a softmax over the sequence, then a residual."""
    x = sequence.double()
    state = {name: value.double() for name, value in state.items()}
    num_layers = 1 + max(int(name.split(".")[1]) for name in state)
    for layer in range(num_layers):
        part = {k.split("self_attn.")[1]: v for k, v in state.items() if k.startswith(f"self_attn_blocks.{layer}.")}
        q, k, v = (
            x @ w.T + b for w, b in zip(part["in_proj_weight"].chunk(3), part["in_proj_bias"].chunk(3), strict=True)
        )
        per_head = WIDTH // HEADS
        joined = torch.zeros_like(x)
        for head in range(HEADS):
            columns = slice(head * per_head, (head + 1) * per_head)
            for i in range(len(x)):
                scores = [float(q[i, columns] @ k[j, columns]) / math.sqrt(per_head) for j in range(len(x))]
                top = max(scores)
                weights = [math.exp(score - top) for score in scores]
                for j, weight in enumerate(weights):
                    joined[i, columns] += weight / sum(weights) * v[j, columns]
        x = x + joined @ part["out_proj.weight"].T + part["out_proj.bias"]
    return x


def random_anonymizer(arch="transformer", **options):
    torch.manual_seed(1)
    options |= {"num_heads": HEADS} if arch == "transformer" else {}
    return build_anonymizer(arch, WIDTH, identity=False, **options).eval()


def test_transformer_equals_slow_reference_on_sequences_and_on_lone_features():
    anonymizer, sequence = random_anonymizer(), torch.randn(7, WIDTH)
    with torch.no_grad():
        over_time = anonymizer(sequence[None])[0]
        alone = anonymizer(sequence)
    torch.testing.assert_close(over_time.double(), slow_transformer(anonymizer.state_dict(), sequence), **TOLERANCE)
    for row, served in zip(sequence, alone, strict=True):
        torch.testing.assert_close(
            served.double(), slow_transformer(anonymizer.state_dict(), row[None])[0], **TOLERANCE
        )


TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32 against float64 over three blocks


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("num", [WIDTH - 1, WIDTH, WIDTH + 1, 3 * WIDTH])
def test_training_on_lone_features_is_attention_over_one_key_whatever_the_batch(num, num_layers):
    """Blocks as they are up to D rows, multiplied together for more: values and all gradients, against attention."""
    anonymizer = random_anonymizer(num_layers=num_layers).double().train()
    rows, upstream = torch.randn(2, num, WIDTH, dtype=torch.double)
    rows.requires_grad_()
    inputs = (rows, *anonymizer.parameters())
    attended = rows[:, None]
    for block in anonymizer.self_attn_blocks:
        attended = block(attended, None)
    mapped = anonymizer(rows)
    torch.testing.assert_close(mapped, attended[:, 0], rtol=1e-10, atol=1e-12)
    gradients = torch.autograd.grad(mapped, inputs, upstream)
    torch.testing.assert_close(gradients, torch.autograd.grad(attended[:, 0], inputs, upstream), rtol=1e-10, atol=1e-10)
    for parameter, gradient in zip(inputs[1:], gradients[1:], strict=True):
        if parameter.shape[0] == 3 * WIDTH:  # of queries, keys and values
            assert not gradient[: 2 * WIDTH].any()
            assert gradient[2 * WIDTH :].any()


def test_low_precision_rounds_no_raw_feature():
    """A residual in bfloat16 would; and an anonymizer that starts as the identity would not be it."""
    anonymizer, rows = build_anonymizer("transformer", WIDTH).train(), torch.randn(2 * WIDTH, WIDTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(anonymizer(rows), rows)
        assert torch.equal(anonymizer(rows[:3]), rows[:3])


def test_sequences_of_one_step_are_lone_features():
    anonymizer, rows = random_anonymizer(), torch.randn(5, WIDTH)
    padded = torch.tensor([True, True, False, True, True])
    for mode in (False, True):
        anonymizer.train(mode)
        rows.requires_grad_(mode)
        mapped = anonymizer(rows[:, None], padded[:, None])[:, 0]
        for row, safe in zip(rows[padded], mapped[padded], strict=True):
            expected = slow_transformer(anonymizer.state_dict(), row.detach()[None])[0]
            torch.testing.assert_close(safe.detach().double(), expected, **TOLERANCE)
        assert torch.equal(mapped[2], rows[2])
    mapped.sum().backward()
    assert torch.isfinite(rows.grad).all()  # attention of a padded step has no key, and no number as its gradient


def test_batch_as_sequence_equals_slow_reference_of_the_whole_batch():
    anonymizer, rows = random_anonymizer(attends_over="batch"), torch.randn(6, WIDTH)
    with torch.no_grad():
        torch.testing.assert_close(
            anonymizer(rows).double(), slow_transformer(anonymizer.state_dict(), rows), **TOLERANCE
        )


@pytest.mark.parametrize("arch", ["transformer", "mlp"])
@pytest.mark.parametrize("width", [24, 192, 768])
def test_a_feature_served_alone_equals_itself_in_a_batch_bit_for_bit(arch, width):
    torch.manual_seed(0)
    anonymizer = build_anonymizer(arch, width, identity=False).eval()
    rows = torch.randn(150, width)
    with torch.no_grad():
        together = anonymizer(rows)
        shuffled = torch.randperm(len(rows))
        assert torch.equal(anonymizer(rows[shuffled]), together[shuffled])
        assert torch.equal(anonymizer(rows[:37]), together[:37])
        for i in range(0, 150, 11):
            assert torch.equal(anonymizer(rows[i]), together[i])


def test_a_sequence_does_not_depend_on_its_batch_or_padding_bit_for_bit():
    anonymizer, sequences = random_anonymizer(), torch.randn(5, 20, WIDTH)
    lengths = torch.tensor([20, 3, 7, 1, 11])
    mask = torch.arange(20) < lengths[:, None]
    with torch.no_grad():
        together = anonymizer(sequences, mask)
        for i, length in enumerate(lengths):
            assert torch.equal(anonymizer(sequences[i : i + 1, :length])[0], together[i, :length])
    assert torch.equal(together[~mask], sequences[~mask])


def test_training_mode_masks_like_evaluation_mode():
    anonymizer, sequences = random_anonymizer(), torch.randn(3, 9, WIDTH)
    mask = torch.arange(9) < torch.tensor([9, 2, 5])[:, None]
    with torch.no_grad():
        served = anonymizer(sequences, mask)
        trained = anonymizer.train()(sequences, mask)
    torch.testing.assert_close(trained, served, **TOLERANCE)


def test_reproduction_mode_mixes_strangers_and_serving_alone_undoes_it():
    anonymizer, rows = random_anonymizer(attends_over="batch"), torch.randn(8, WIDTH)
    with torch.no_grad():
        together = anonymizer(rows)
        without_last = anonymizer(rows[:-1])
        assert not torch.allclose(together[0], without_last[0], atol=1e-3)
        alone = one_by_one(anonymizer, rows)
        assert torch.equal(alone[:3], one_by_one(anonymizer, rows[:3]))
        torch.testing.assert_close(alone[2], anonymizer(rows[2:3])[0], **TOLERANCE)  # a batch of one


@pytest.mark.parametrize("arch", sorted(set(ANONYMIZERS) - {"quantizer"}))  # which has no codes to be it
@pytest.mark.parametrize("shape", [(WIDTH,), (5, WIDTH), (2, 3, WIDTH), (2, 2, 3, WIDTH)])
def test_a_new_anonymizer_is_exactly_the_identity(arch, shape):
    anonymizer, features = build_anonymizer(arch, WIDTH), torch.randn(shape)
    assert torch.equal(anonymizer.eval()(features), features)
    assert torch.equal(anonymizer.train()(features), features)


def test_published_parameter_names_and_count():
    anonymizer = build_anonymizer("transformer", 768)
    expected = {
        f"self_attn_blocks.{i}.self_attn.{name}"
        for i in range(3)
        for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    }
    assert set(anonymizer.state_dict()) == expected
    assert abs(sum(p.numel() for p in anonymizer.parameters()) - 7.1e6) < 0.05e6  # "about 7.1 M" in the paper
    assert set(build_anonymizer("mlp", 768).state_dict()) == {"fc1.weight", "fc1.bias", "fc2.weight"}


def test_mlp_without_residual_is_two_layers():
    anonymizer, rows = random_anonymizer("mlp", residual=False), torch.randn(4, WIDTH)
    state = anonymizer.state_dict()
    expected = (rows @ state["fc1.weight"].T + state["fc1.bias"]).clamp_min(0) @ state["fc2.weight"].T
    torch.testing.assert_close(anonymizer(rows), expected, **TOLERANCE)


@pytest.mark.parametrize("arch", ["transformer", "mlp"])
def test_architecture_is_found_again_from_bare_weights(arch):
    anonymizer = random_anonymizer(arch)
    found = infer_architecture(anonymizer.state_dict())
    assert found["arch"] == arch
    assert found["feature_dim"] == WIDTH


def test_bad_input_is_named():
    anonymizer = random_anonymizer()
    with pytest.raises(ValueError, match=rf"\b5\b.*\b{WIDTH}\b"):
        anonymizer(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="mask"):
        anonymizer(torch.zeros(2, WIDTH), torch.ones(2, dtype=torch.bool))
    with refused("fa_arch"):
        build_anonymizer("transfomer", WIDTH)
    with refused("num_heads"):
        build_anonymizer("transformer", WIDTH, num_heads=5)
    with refused("num_layers"):
        build_anonymizer("transformer", WIDTH, num_layers=0)
    with refused("fa_model_state_dict"):
        infer_architecture({"layer.weight": torch.zeros(1)})


def test_the_package_gives_every_name_that_it_lists():
    assert all(getattr(anonymizers, name) is not None for name in anonymizers.__all__)
    assert {name for names in anonymizers._NAMES.values() for name in names} == set(anonymizers.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        anonymizers.no_such_name  # noqa: B018
