import json
import re
import sys

import pytest
from refusals import refused

from splavu import __main__
from splavu.reports.plotting import ALONE, BATCH, RAW
from splavu.reports.run_report import write_report
from splavu.reports.run_sections import Configuration, headline


def unpadded(path):
    """The report with single spaces: columns are padded to line up."""
    return re.sub(" +", " ", path.read_text())


def entry(raw, anonymized, chance):
    leakage = (anonymized - chance) / (raw - chance)
    return {
        "chance": chance,
        "raw": {"ap": raw, "interval": [raw - 0.02, raw + 0.02], "attacker": "logistic"},
        "anonymized": {"ap": anonymized, "interval": [anonymized - 0.02, None], "attacker": "trees"},
        "leakage": leakage,
        "leakage_interval": [leakage - 0.1, leakage + 0.1],
    }


@pytest.fixture
def runs(tmp_path):
    """A raw head, a head on anonymized features, an adapter, and a released evaluation; all made up."""

    def write(name, **files):
        folder = tmp_path / "study" / name
        folder.mkdir(parents=True)
        (folder / "versions.json").write_text(json.dumps({"torch": "2.13"}))
        for file, value in files.items():
            (folder / f"{file}.json").write_text(json.dumps(value))
        return folder

    adapter = write("aam", params={"seed": 0}, results={"epoch": 2, "score": 0.9, "checkpoint": "x"})
    lines = [{"step": step, "loss/latent": 0.1 * step, "loss/privacy": -step, "val/ar/top1": 0.5} for step in range(3)]
    (adapter / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write("ft_raw", params={"anon": False}, results={"features": "raw", "test": {"top1": 0.875}})
    saved = {"anon": True, "saved_fa_model": "saved_models/study/aam/model_temp.pth", "serving": "alone"}
    write("ft_safe", params=saved, results={"features": "anonymized", "test": {"top1": 0.75}})
    gate = {"passed": True, "view": "static", "claim": "raw features are attacked", "cmap": 0.8, "chance": 0.4}
    judged = {
        "attributes": {"gender": entry(0.9, 0.6, 0.5), "skin_color": entry(0.7, 0.4, 0.3)},
        "mean": entry(0.8, 0.5, 0.4),
        "rows": {"train": 100, "validation": 10, "test": 50},
        "subjects": {"train": 10, "validation": 2, "test": 5},
        "train_rows_used": 100,
    }
    result = {
        "protocol": {"name": "released"},
        "valid": True,
        "gates": [gate],
        "views": {"static": judged},
        "seconds": 3.0,
    }
    write("privacy", params=saved, metrics=result)
    return tmp_path / "study"


def test_a_report_brings_utility_and_privacy_of_the_same_features_together(runs):
    text = unpadded(write_report(runs).path)
    assert "| raw features | 87.5 | 80.0 [78.0, 82.0] | 1.00 |" in text
    assert "| aam, one feature at a time | 75.0 | 50.0 [48.0, -] | 0.25 [0.15, 0.35] |" in text
    assert "| gender | 90.0 [88.0, 92.0] | 60.0 [58.0, -] | 50.0 | 0.25 [0.15, 0.35] | trees |" in text
    assert "Not valid" not in text
    for name in ("plane", "leakage_privacy", "curves"):
        assert f"figures/{name}.png" in text
        assert (runs / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((runs / "metrics.json").read_text())
    assert [c["top1"] for c in summary["configurations"]] == [0.875, 0.75]


def test_the_opening_sentences_are_about_raw_features_and_each_anonymizer_served_alone():
    def of(label, colour, top1, ap):
        return Configuration(label, colour, top1=top1, privacy={"temporal": {"ap": ap, "chance": 0.4, "leakage": ap}})

    told = headline(
        [
            of("raw features", RAW, 0.9, 0.8),
            of("paper, one feature at a time", ALONE, 0.88, 0.75),
            of("paper, in its batch", BATCH, 0.5, 0.6),
            of("ours, one feature at a time", ALONE, 0.87, 0.5),
            Configuration("unattacked, one feature at a time", ALONE, top1=0.7),
        ],
        ["temporal"],
    )
    first, *others = re.split(r"(?<=\.) ", told.strip())
    assert "90.0% of videos" in first
    assert "80.0% cMAP" in first
    assert "chance is 40.0%" in first
    assert [re.search(r"After (\w+) the accuracy is ([\d.]+)%.* (\d+)% of it", one).groups() for one in others] == [
        ("paper", "88.0", "75"), ("ours", "87.0", "50")
    ]  # fmt: skip


def test_detection_joins_the_row_of_its_features(runs):
    for name, aam, serving, average in (
        ("tad_raw", None, None, 0.6),
        ("tad_alone", "saved_models/study/aam/model_temp.pth", "alone", 0.5),
        ("tad_video", "saved_models/study/aam/model_temp.pth", "video", 0.55),
    ):
        found = {"aam": aam, "aam_serving": serving, "average_map": average, "map": {"0.30": 0.75, "0.70": 0.25}}
        (runs / name).mkdir()
        (runs / name / "params.json").write_text(json.dumps({"init_rand_seed": 7}))
        (runs / name / "results.json").write_text(json.dumps({"tad": found}))
    text = unpadded(write_report(runs).path)
    assert "| raw features | 87.5 | 60.0 | 80.0 [78.0, 82.0] | 1.00 |" in text
    assert "| aam, one feature at a time | 75.0 | 50.0 | 50.0 [48.0, -]" in text
    assert "| aam, a video as one sequence | 75.0 | 25.0 | 55.0 |" in text  # by tIoU
    assert "| tad_raw | detector | 7 |" in text


def test_anomaly_detection_joins_the_row_of_its_features(runs):
    for name, aam, serving, auc in (
        ("ad_raw", None, None, 0.9),
        ("ad_alone", "saved_models/study/aam/model_temp.pth", "alone", 0.8),
    ):
        found = {
            "aam": aam,
            "aam_serving": serving,
            "roc_auc": auc,
            "pr_auc": 0.5,
            "best_test_epoch": {"roc_auc": 0.95},
            "chosen": {"epoch": 7} if aam else {"epoch": 4, "auc": 0.8},
        }
        (runs / name).mkdir()
        (runs / name / "options.json").write_text(json.dumps({"seed": 3}))
        (runs / name / "results.json").write_text(json.dumps({"ad": found}))
    text = unpadded(write_report(runs).path)
    assert "| raw features | 87.5 | 90.0 | 80.0 [78.0, 82.0] | 1.00 |" in text
    assert "| raw features | 90.0 | 50.0 | 4, chosen on validation videos | 95.0 |" in text  # the section's own table
    assert "| aam, one feature at a time | 80.0 | 50.0 | 7, the last | 95.0 |" in text
    assert "| chance | | 50.0 | 40.0 | 0.00 |" in text
    assert "| ad_raw | detector | 3 |" in text


def test_without_matplotlib_nothing_is_written(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with refused("matplotlib"):
        write_report(runs)
    assert not (runs / "figures").exists()


def test_a_failed_gate_is_told_at_the_top(runs):
    path = runs / "privacy/metrics.json"
    result = json.loads(path.read_text())
    result["valid"] = result["gates"][0]["passed"] = False
    path.write_text(json.dumps(result))
    text = unpadded(write_report(runs).path)
    assert text.index("**Not valid:** a gate failed in privacy") < text.index("| raw features |")
    assert "**FAILED**: static clips" in text


@pytest.mark.slow
def test_a_report_is_reproducible_and_shows_frames(runs, tmp_path):
    pytest.importorskip("cv2", reason="rendering the world needs OpenCV")
    __main__.main(["synthesize", "--out", str(tmp_path / "world"), "--size", "tiny", "--workers", "1", "--quiet"])
    first = write_report(runs, data=tmp_path / "world")
    pictures = {path.name: path.read_bytes() for path in (runs / "figures").iterdir()}
    assert "world.png" in pictures
    assert "## The videos" in first.path.read_text()
    write_report(runs, data=tmp_path / "world")
    assert pictures == {path.name: path.read_bytes() for path in (runs / "figures").iterdir()}


def test_a_folder_without_results(tmp_path):
    with refused("test_a_folder_without_results0"):
        write_report(tmp_path)


def test_a_run_brings_its_own_section_and_its_pictures_are_found(runs):
    written = write_report(runs)
    assert "gait" not in written.table
    (runs / "gait").mkdir()
    (runs / "gait/params.json").write_text("{}")
    (runs / "gait/table.md").write_text("## Gait\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n![curve](curve.png)\n")
    (runs / "gait/curve.png").write_bytes(b"a picture")
    report = write_report(runs)
    text = report.path.read_text()
    assert "## Gait\n\n| a | b |" in text
    assert "![curve](gait/curve.png)" in text
    assert "| gait | protocol |" in unpadded(report.path)
    assert report.table == written.table  # the run printed its own table


def test_a_section_stands_without_any_head_or_attack(tmp_path):
    (tmp_path / "gait").mkdir()
    (tmp_path / "gait/params.json").write_text("{}")
    (tmp_path / "gait/table.md").write_text("## Gait\n")
    text = write_report(tmp_path).path.read_text()
    assert "## Gait" in text
    assert "cMAP" not in text


def test_the_figure_of_a_head_for_attributes_has_a_column(runs):
    saved = {"anon": True, "saved_fa_model": "saved_models/study/aam/model_temp.pth", "serving": "alone"}
    for name, params, cmap in (("fb_raw", {"anon": False}, 0.625), ("fb_safe", saved, 0.5)):
        (runs / name).mkdir()
        (runs / name / "params.json").write_text(json.dumps(params))
        (runs / name / "results.json").write_text(json.dumps({"features": "x", "test": {"cmap": cmap, "loss": 1.0}}))
    text = unpadded(write_report(runs).path)
    assert "| features | top-1 | head cMAP |" in text
    assert "| raw features | 87.5 | 62.5 |" in text
    assert "| aam, one feature at a time | 75.0 | 50.0 |" in text


def test_names_in_figures_are_no_formulas(tmp_path):
    plotting = pytest.importorskip("splavu.reports.plotting")
    pytest.importorskip("matplotlib")
    figure, (axis,) = plotting.canvas(2, 2)
    axis.set_title(r"run$\frac$")
    assert plotting.saved(figure, tmp_path / "f.png").stat().st_size
