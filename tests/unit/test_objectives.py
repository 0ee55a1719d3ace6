import math

import pytest
import torch

from splavu.objectives import latent_consistency, nt_xent


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
