import json

import numpy as np
import pytest
import torch
from torch import nn

from tridet.config import OptConfig
from tridet.optim import LearningRate, learning_rate


@pytest.mark.parametrize("case", ["project", "short", "eta", "multistep", "cosine_nowarmup", "past_end"])
def test_learning_rates_of_the_public_program(shared, case):
    golden = np.load(shared / "golden/tridet/lr_schedule.npz")
    options = json.loads(str(golden[f"{case}/opt_json"]))
    opt = OptConfig(**{**options, "schedule_steps": tuple(options["schedule_steps"])})
    iters_per_epoch, expected = int(golden[f"{case}/iters_per_epoch"]), golden[f"{case}/lr"]
    if case == "past_end":
        end = opt.num_epochs * iters_per_epoch
        past = [learning_rate(step, opt, iters_per_epoch=iters_per_epoch) for step in range(end, len(expected))]
        assert past == pytest.approx([opt.eta_min] * 7, abs=1e-15)
        assert expected[-1] > 1000 * opt.eta_min  # there it rises again
        expected = expected[: end + 1]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = LearningRate(optimizer, opt, iters_per_epoch=iters_per_epoch)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)
