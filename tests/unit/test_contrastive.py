import math

import pytest
import torch
from torch.nn.functional import mse_loss
from torch.utils._python_dispatch import TorchDispatchMode

from splavu.training import contrastive
from splavu.training.contrastive import nt_xent, nt_xent_share
from splavu.training.heads import reverse_gradient


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


def softmax_nt_xent(z0, z1, temperature, normalise):
    """The definition by torch's own cross-entropy, for autograd to differentiate."""
    rows = torch.cat([z0, z1])
    if normalise:
        rows = rows / rows.norm(dim=1, keepdim=True)
    similarity = (rows @ rows.T / temperature).masked_fill(torch.eye(len(rows), dtype=torch.bool), -torch.inf)
    return torch.nn.functional.cross_entropy(similarity, torch.arange(len(rows)).roll(len(z0)))


def double_views(num, width):
    generator = torch.Generator().manual_seed(num)
    return [torch.randn(num, width, generator=generator, dtype=torch.double, requires_grad=True) for _ in range(2)]


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("block", [None, 1, 3, 9, 18, 100])
def test_nt_xent_and_its_gradients_are_those_of_the_definition_in_any_blocks(block, normalise):
    views = double_views(9, 5)
    expected = softmax_nt_xent(*views, 0.5, normalise)
    loss = nt_xent(*views, temperature=0.5, normalise=normalise, block=block)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(3 * loss, views)  # a factor, so that the gradient that comes in isn't 1
    expected_gradients = torch.autograd.grad(3 * expected, views)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *z: nt_xent(*z, temperature=0.5, normalise=normalise, block=block), views)


def test_large_batches_never_hold_the_whole_matrix(monkeypatch):
    """Beyond the limit, no matrix of similarities is kept from the loss to its gradient, and blocks fit the limit."""
    monkeypatch.setattr(contrastive, "LARGEST_SIMILARITY", 5 * 24)
    made, make = [], contrastive._similarities
    monkeypatch.setattr(contrastive, "_similarities", lambda *args: made.append(make(*args)) or made[-1])
    views = double_views(12, 4)
    loss = nt_xent(*views)
    assert [len(block) for block in made] == [5, 5, 5, 5, 4]
    loss.backward()
    assert len(made) == 10
    torch.testing.assert_close(loss, softmax_nt_xent(*views, 0.1, True), rtol=1e-12, atol=0)
    made.clear()
    nt_xent(*(view[:5] for view in views)).backward()  # 10 x 10 fits
    assert [len(block) for block in made] == [10]


@pytest.mark.parametrize("shares", [(7,), (3, 4), (4, 0, 3), (1, 5, 1), (0, 7)])
@pytest.mark.parametrize("block", [None, 2])
def test_shares_of_processes_add_up_to_the_whole_with_their_gradients(shares, block):
    """Gathering with gradients is, on one process, concatenation."""
    views = double_views(sum(shares), 6)
    expected = softmax_nt_xent(*views, 0.3, True)
    parts = [view.split(shares) for view in views]
    gathered = [torch.cat(part) for part in parts]
    losses = [
        nt_xent_share(*local, *gathered, offset=sum(shares[:rank]), temperature=0.3, block=block)
        for rank, local in enumerate(zip(*parts, strict=True))
    ]
    for loss, num in zip(losses, shares, strict=True):
        assert num or not loss
    torch.testing.assert_close(sum(losses), expected, rtol=1e-12, atol=0)
    gradients, expected_gradients = (torch.autograd.grad(loss, views) for loss in (sum(losses), expected))
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-10, atol=1e-12)


def test_the_share_of_a_single_process_is_the_loss():
    views = double_views(5, 3)
    assert torch.equal(nt_xent_share(*views, *views, offset=0), nt_xent(*views))
    with pytest.raises(ValueError, match=r"\b1\b.*\b6\b.*\b5\b"):
        nt_xent_share(*(view.clone() for view in views), *views, offset=1)


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a device: a tensor's value or a size that depends on values."""

    WAITS = frozenset(
        {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"}
    )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.name() not in self.WAITS, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("block", [None, 3])
def test_no_objective_waits_for_the_device(block):
    views, more = double_views(4, 3), double_views(6, 3)
    with NoWaiting():
        loss = nt_xent(*views, block=block) + mse_loss(reverse_gradient(views[0]), views[1])
        loss = loss + nt_xent_share(*(view[2:4] for view in more), *more, offset=2, block=block)
        loss.backward()
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        float(loss.detach())


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
    leaves = [[z.clone().requires_grad_() for z in (z0, z1)] for _ in range(2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nt_xent(*leaves[0]).backward()  # the backward pass too, wherever it is called
    nt_xent(*leaves[1]).backward()
    assert all(torch.equal(mixed.grad, full.grad) for mixed, full in zip(*leaves, strict=True))


def test_nt_xent_refuses_views_that_do_not_pair_up():
    with pytest.raises(ValueError, match=r"\(3, 8\).*\(4, 8\)"):
        nt_xent(torch.zeros(3, 8), torch.zeros(4, 8))
    with pytest.raises(ValueError, match="views"):
        nt_xent(torch.zeros(0, 8), torch.zeros(0, 8))


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
