import math

import pytest
import torch

from splavu.objectives import latent_consistency, nt_xent, reverse_gradient


def slow_nt_xent(z0, z1, temperature):
    """SimCLR's Algorithm 1 in loops, float64."""
    rows = [row / row.norm() for row in torch.cat([z0, z1]).double()]
    total, num = 0.0, len(z0)
    for i in range(2 * num):
        partner = (i + num) % (2 * num)
        similarity = [float(rows[i] @ rows[j]) / temperature for j in range(2 * num)]
        denominator = sum(math.exp(similarity[j]) for j in range(2 * num) if j != i)
        total += math.log(denominator) - similarity[partner]
    return total / (2 * num)


@pytest.mark.parametrize(("num", "width", "temperature"), [(2, 3, 0.1), (7, 16, 0.5), (12, 128, 0.1)])
def test_nt_xent_equals_the_paper_in_loops(num, width, temperature):
    torch.manual_seed(num)
    z0, z1 = torch.randn(2, num, width)
    expected = slow_nt_xent(z0, z1, temperature)
    assert float(nt_xent(z0, z1, temperature=temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(nt_xent(z1, z0, temperature=temperature)) == pytest.approx(expected, rel=1e-5)


def test_nt_xent_closed_forms():
    same = torch.ones(5, 8)
    assert float(nt_xent(same, same)) == pytest.approx(math.log(9), rel=1e-6)  # 2B - 1 equal candidates
    one = torch.randn(1, 8, requires_grad=True)
    loss = nt_xent(one, torch.randn(1, 8))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not one.grad.any()
    assert torch.isfinite(nt_xent(torch.zeros(3, 8), torch.zeros(3, 8)))  # a dead feature has no direction


def test_nt_xent_is_computed_in_float32_under_autocast():
    z0, z1 = torch.randn(2, 6, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nt_xent(z0, z1)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, nt_xent(z0, z1))


def test_nt_xent_refuses_views_that_do_not_pair_up():
    with pytest.raises(ValueError, match="two views"):
        nt_xent(torch.zeros(3, 8), torch.zeros(4, 8))


def test_latent_consistency_is_the_mean_over_all_elements():
    assert float(latent_consistency(torch.full((2, 3), 2.0), torch.zeros(2, 3))) == 4.0


def test_a_reversed_gradient_changes_its_sign_and_no_value():
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    reversed_ = reverse_gradient(features)
    assert torch.equal(reversed_, features)
    (3 * reversed_).sum().backward()
    assert torch.equal(features.grad, torch.full((4, 3), -3.0))


def test_an_adversary_descends_while_what_feeds_it_climbs():
    """One loss, two players: both gradients are those of the plain loss, one with its sign changed."""
    generator = torch.Generator().manual_seed(0)
    raw, labels = torch.randn(8, 3, generator=generator), torch.randint(0, 2, (8, 2), generator=generator).float()
    gradients = {}
    for name, wrap in (("plain", lambda z: z), ("reversed", reverse_gradient)):
        torch.manual_seed(0)
        adapter, head = torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)
        torch.nn.functional.binary_cross_entropy_with_logits(head(wrap(adapter(raw))), labels).backward()
        gradients[name] = (adapter.weight.grad, head.weight.grad)
    assert torch.allclose(gradients["reversed"][0], -gradients["plain"][0])
    assert torch.equal(gradients["reversed"][1], gradients["plain"][1])
