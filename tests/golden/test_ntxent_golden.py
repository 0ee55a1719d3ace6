import numpy as np
import pytest
import torch

from splavu.training.contrastive import nt_xent


@pytest.mark.parametrize("similarity", ["dot", "cos"])
@pytest.mark.parametrize("kind", ["unit", "raw"])
def test_losses_and_gradients_of_the_public_program(shared, kind, similarity):
    golden = np.load(shared / "golden/ntxent/ntxent.npz")
    assert len(golden["cases"]) > 0
    for case, (_, _, temperature) in enumerate(golden["cases"]):
        views = [torch.tensor(golden[f"c{case}_{kind}_{name}"], requires_grad=True) for name in ("first", "second")]
        result = f"c{case}_{kind}_{similarity}"
        for order, suffix in ((views, "_loss"), (views[::-1], "_loss_swapped")):
            loss = nt_xent(*order, temperature=float(temperature), normalise=similarity == "cos")
            expected = float(golden[result + suffix])
            assert abs(float(loss.detach()) - expected) <= 2e-6 * max(1.0, expected)
        nt_xent(*views, temperature=float(temperature), normalise=similarity == "cos").backward()
        for view, name in zip(views, ("first", "second"), strict=True):
            np.testing.assert_allclose(view.grad, golden[f"{result}_grad_{name}"], rtol=0, atol=1e-5)
