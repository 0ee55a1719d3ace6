import torch

from splavu.training.learners import adamw


def test_adamw_takes_the_steps_of_the_paper():
    """Loshchilov and Hutter 2019, algorithm 2, in float64; one parameter never gets a gradient."""
    torch.manual_seed(0)
    weight, idle = torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.ones(2))
    optimizer = adamw([weight, idle], lr=1e-2, weight_decay=0.1)
    expected = weight.detach().double()
    first, second = torch.zeros(2, 5, 3, dtype=torch.double)
    for step in range(1, 6):
        gradient = torch.randn(5, 3)
        weight.grad = gradient.clone()
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.double() ** 2
        direction = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        expected = expected - 1e-2 * 0.1 * expected - 1e-2 * direction
    torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(idle, torch.ones(2))
    assert optimizer.defaults["fused"]


def test_adamw_does_without_the_kernel_where_there_is_none():
    assert not adamw([torch.nn.Parameter(torch.zeros(2, device="meta"))], lr=1e-2, weight_decay=0.0).defaults["fused"]
