import torch
from conftest import WIDTH

import model_loaders
from splavu.anonymizers import FrozenAnonymizer, build_anonymizer, one_by_one
from splavu.anonymizers.loading import load_anonymizer
from splavu.runtime import checkpoints


def test_served_alone_and_in_a_batch_differ_only_for_a_mixing_anonymizer():
    torch.manual_seed(0)
    rows = torch.randn(9, WIDTH)
    for attends_over, mixes in (("time", False), ("batch", True)):
        anonymizer = build_anonymizer("transformer", WIDTH, attends_over=attends_over, identity=False)
        alone, batch = (FrozenAnonymizer(anonymizer, serving)(rows) for serving in ("alone", "batch"))
        assert torch.equal(alone, one_by_one(anonymizer, rows))
        assert torch.allclose(alone, batch, atol=1e-4) is not mixes


def test_a_served_anonymizer_stays_frozen_in_training():
    anonymizer = build_anonymizer("mlp", WIDTH, identity=False)
    served = FrozenAnonymizer(anonymizer).train()
    assert not served(torch.randn(3, WIDTH, requires_grad=True)).requires_grad
    assert not anonymizer.training
    assert not any(parameter.requires_grad for parameter in served.parameters())


def test_published_checkpoints_load_by_their_parameter_names(tmp_path):
    torch.manual_seed(0)
    trained = build_anonymizer("transformer", WIDTH, num_layers=2, identity=False)
    wrapped = {f"module.{name}": value for name, value in trained.state_dict().items()}
    path = checkpoints.write(tmp_path / "published.pth", {"fa_model_state_dict": wrapped})
    loaded = load_anonymizer(path)
    rows = torch.randn(4, WIDTH)
    assert torch.equal(loaded.eval()(rows), trained.eval()(rows))
    assert loaded.architecture["num_layers"] == 2


def test_the_names_that_other_code_imports():
    class Params:
        fa_arch, ft_arch, ar_dataset = "transformer", "videoMAE", "hmdb51"
        num_layers_fa, num_heads = 3, 8

    assert model_loaders.load_fa(Params)(torch.zeros(2, 768)).shape == (2, 768)
    assert model_loaders.load_fa(Params, arch="mlp").architecture["arch"] == "mlp"
    assert model_loaders.load_ft(Params)(torch.zeros(2, 768)).shape == (2, 51)
    projected = model_loaders.load_fb()(torch.randn(2, 768))
    assert projected.shape == (2, 128)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(2))
