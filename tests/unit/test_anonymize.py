import numpy as np
import torch
from conftest import WIDTH
from refusals import refused

from splavu import __main__
from splavu.anonymizers import build_anonymizer
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.release.anonymize import anonymize_store
from splavu.runtime import checkpoints
from splavu.stores import FeatureFolder, FeatureStore, FolderWriter


def saved(anonymizer, path):
    content = {"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}
    return checkpoints.write(path, content)


def test_a_released_store_holds_each_feature_anonymized_alone(study, tmp_path):
    torch.manual_seed(0)
    anonymizer = build_anonymizer("mlp", WIDTH, identity=False)
    checkpoint = saved(anonymizer, tmp_path / "aam.pth")
    source, target = study.features / "features_hmdb_test_demo.h5", tmp_path / "released.h5"
    assert __main__.main(["anonymize", str(source), "--aam", str(checkpoint), "--out", str(target), "--quiet"]) == 0
    raw, released = FeatureStore(source), FeatureStore(target)
    assert released.keys() == raw.keys()
    assert released.attributes["encoder"] == "demo"
    assert released.attributes["anonymizer_sha256"] == weights_hash(anonymizer)
    anonymizer.eval()
    for key in raw.keys()[:5]:
        alone = [anonymizer(torch.from_numpy(row)).detach().numpy() for row in raw[key]]
        np.testing.assert_array_equal(released[key], np.stack(alone))
        assert not np.allclose(released[key], raw[key], atol=0.01)


def test_a_folder_of_videos_is_released_alone_or_video_by_video(tmp_path):
    torch.manual_seed(0)
    anonymizer = build_anonymizer("transformer", WIDTH, identity=False)
    checkpoint = saved(anonymizer, tmp_path / "aam.pth")
    raw = {"a": torch.randn(5, WIDTH), "b": torch.randn(7, 2, WIDTH)}  # b has two crops
    writer = FolderWriter(tmp_path / "raw", attributes={"encoder": "demo"})
    for key, features in raw.items():
        writer.add(key, features.numpy())
    anonymizer.eval()
    for unit in ("alone", "video"):
        out = tmp_path / unit
        command = ["anonymize", str(tmp_path / "raw"), "--aam", str(checkpoint), "--out", str(out), "--unit", unit]
        assert __main__.main([*command, "--quiet"]) == 0
        released = FeatureFolder(out)
        assert released.attributes["anonymizer_sha256"] == weights_hash(anonymizer)
        with torch.no_grad():
            for key, features in raw.items():
                if unit == "alone":
                    expected = torch.stack([anonymizer(row) for row in features.flatten(0, -2)]).view_as(features)
                elif features.ndim == 2:
                    expected = anonymizer(features[None])[0]
                else:
                    expected = torch.stack([anonymizer(crop[None])[0] for crop in features.unbind(1)], dim=1)
                np.testing.assert_array_equal(released[key], expected.numpy())
    assert not np.allclose(FeatureFolder(tmp_path / "alone")["a"], FeatureFolder(tmp_path / "video")["a"], atol=1e-3)


def test_clips_of_a_store_are_no_sequence(study, tmp_path):
    with refused("unit"):
        anonymize_store(
            study.features / "features_hmdb_test_demo.h5",
            tmp_path / "out.h5",
            build_anonymizer("transformer", WIDTH),
            unit="video",
        )


def test_what_can_not_be_released_is_refused(study, tmp_path):
    source = study.features / "features_hmdb_test_demo.h5"
    mixing = build_anonymizer("transformer", WIDTH, attends_over="batch")
    with refused("anonymizer"):
        anonymize_store(source, tmp_path / "out.h5", mixing)
    with refused(source):
        anonymize_store(source, source, build_anonymizer("transformer", WIDTH))
    with refused(source):
        anonymize_store(source, tmp_path / "out.h5", build_anonymizer("transformer", 24))
    assert list(tmp_path.glob("out*")) == []


def test_an_anonymizer_comes_back_as_it_was_trained(tmp_path):
    for options in ({"attends_over": "batch", "num_heads": 4, "num_layers": 2}, {}):
        trained = build_anonymizer("transformer", WIDTH, identity=False, **options)
        loaded = load_anonymizer(saved(trained, tmp_path / "aam.pth"))
        assert loaded.architecture == trained.architecture
        assert weights_hash(loaded) == weights_hash(trained)
