"""The demo's chain, small: videos, the shipped encoder, anonymizer, head, attackers, released store, report."""

import json

from conftest import REPOSITORY

import multitask_train_fa
import privacy_eval
import train_ft
import tridet.eval
import tridet.train
from feature_extraction import feature_extraction_action, long_videos
from splavu import __main__
from splavu.stores import FeatureStore


def test_from_pixels_to_a_report(tmp_path, monkeypatch, capsys):
    import config

    monkeypatch.setattr(config, "RUNS", tmp_path / "runs")
    world = tmp_path / "world"
    common = ["--quiet", "--device", "cpu"]
    synthesize = ["synthesize", "--out", str(world), "--size", "tiny", "--sets", "hmdb51,thumos14", "--workers", "1"]
    assert __main__.main([*synthesize, *common]) == 0

    extract = ["--data", str(world), "--features", str(world / "features"), "--dataset", "hmdb51", "--static", "10"]
    assert feature_extraction_action.main([*extract, *common]) == 0
    where = ["--encoder", "demo", "--data", str(world), "--features", str(world / "features")]
    assert long_videos.main([*where, "--dataset", "thumos14", *common]) == 0
    raw = FeatureStore(world / "features/features_hmdb_train_demo.h5")
    assert raw.feature_dim == 192
    assert raw.attributes["encoder"] == "demo"

    def run(script, params, *overrides, flags=()):
        settings = [part for text in (f"data_root={world}", *overrides) for part in ("--set", text)]
        return script.main(["--params", str(REPOSITORY / "params" / params), *common, *settings, *flags])

    adapter = tmp_path / "runs/demo/aam/model_temp.pth"
    videos = world / "thumos14/thumos14.json"
    classes = {a["label"] for v in json.loads(videos.read_text())["database"].values() for a in v["annotations"]}
    detector = tmp_path / "thumos_tiny.yaml"
    detector.write_text(
        f"base: {REPOSITORY / 'tridet/thumos_demo.yaml'}\n"
        f"output_folder: {tmp_path / 'runs/demo'}\n"
        f"opt: {{epochs: 1, warmup_epochs: 1}}\n"
        f"dataset: {{num_classes: {len(classes)}, json_file: {videos}, feat_folder: {world}/features/thumos14_demo}}\n"
    )
    joint = (f"tad_config={detector}", "ft_ad_loss_weight=0", "num_epochs=3")
    assert run(multitask_train_fa, "params_demo.py", *joint) == 0
    for name, options in (("raw", ()), ("alone", ("--aam", str(adapter), "--aam-serving", "alone"))):
        assert tridet.train.main([str(detector), "--output", name, *options, *common]) == 0
        trained = str(tmp_path / f"runs/demo/thumos_tiny_{name}")
        assert tridet.eval.main([str(detector), trained, *options, *common]) == 0
    assert run(train_ft, "params_demo_ft.py", "num_epochs=4", "anon=False", "run_id=demo/ft_raw") == 0
    assert run(train_ft, "params_demo_ft.py", "num_epochs=4", f"saved_fa_model={adapter}") == 0
    # Two test people are too few for the gates, which is for them to say.
    cheap = ("attackers=('logistic',)", "seeds=(0,)", "num_resamples=50", f"saved_fa_model={adapter}")
    assert run(privacy_eval, "params_demo_fb.py", *cheap, flags=["--anyway"]) == 4

    assert __main__.main(["report", str(tmp_path / "runs/demo"), "--data", str(world), *common]) == 0
    report = tmp_path / "runs/demo/report.md"
    assert str(report) in capsys.readouterr().out
    assert "| raw features " in report.read_text()
    assert "## Temporal action detection" in report.read_text()
    assert (tmp_path / "runs/demo/figures/world.png").is_file()
    assert json.loads((tmp_path / "runs/demo/metrics.json").read_text())["configurations"]

    target = tmp_path / "released.h5"
    assert __main__.main(["anonymize", str(raw.path), "--aam", str(adapter), "--out", str(target), *common]) == 0
    assert FeatureStore(target).keys() == raw.keys()
