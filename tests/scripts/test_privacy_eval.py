"""privacy_eval.py as a user runs it, on a made-up study whose features do give attributes away."""

from __future__ import annotations

import csv
import json
import random

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, WIDTH
from refusals import assert_refuses

import privacy_eval
from splavu.anonymizers import build_anonymizer
from splavu.data.labels import VISPR_ATTRIBUTES

PARAMS = str(REPOSITORY / "params/params_demo_fb.py")
SMALL = ("data_root=None", "views=('temporal',)", "attackers=('logistic',)", "seeds=(0,)", "num_resamples=100")


def arguments(*overrides: str) -> list[str]:
    settings = [part for text in (*SMALL, *overrides) for part in ("--set", text)]
    return ["--params", PARAMS, "--device", "cpu", "--quiet", *settings]


def save(study, name: str = "adapter.pth", *, width: int = WIDTH, erase: bool = False) -> str:
    """A checkpoint: an MLP that starts as the identity, or one that returns zeros."""
    anonymizer = build_anonymizer("mlp", width, residual=not erase)
    if erase:
        torch.nn.init.zeros_(anonymizer.fc2.weight)
    path = study.root / name
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    return f"saved_fa_model={path}"


def result_of(study, run_id: str = "demo/privacy") -> dict:
    return json.loads((study.runs / run_id / "metrics.json").read_text())


def test_an_identity_leaks_all_and_zeros_leak_nothing(study, capsys):
    assert privacy_eval.main(arguments(save(study), "views=('temporal', 'static')")) == 0
    table = capsys.readouterr().out
    identity = result_of(study)
    assert list(identity["views"]) == ["temporal", "static"]
    for view in identity["views"].values():
        assert view["mean"]["raw"]["ap"] > view["mean"]["chance"] + 0.2
        assert view["mean"]["leakage"] == pytest.approx(1)
        assert list(view["attributes"]) == list(VISPR_ATTRIBUTES)
    assert "temporal: release protocol, one feature at a time" in table
    assert table.count("passed") == 4

    assert privacy_eval.main(arguments(save(study, "zeros.pth", erase=True))) == 0
    zeros = result_of(study)["views"]["temporal"]["mean"]
    assert zeros["anonymized"]["ap"] == pytest.approx(zeros["chance"])
    assert zeros["leakage"] == pytest.approx(0)
    assert {"params.json", "versions.json", "metrics.json"} <= {p.name for p in (study.runs / "demo/privacy").iterdir()}


def test_too_few_test_subjects_are_undecided_before_anything_is_trained(study, capsys, monkeypatch):
    from splavu.attacks import release_protocol
    from splavu.attacks.gates import Power

    few = Power(subjects=8, least_p=1 / 70, one_class=0.008, needed=10)
    monkeypatch.setattr(release_protocol, "power_of", lambda *labels: few)
    assert privacy_eval.main(arguments(save(study))) == 4
    assert "10 can decide" in capsys.readouterr().out
    assert not (study.runs / "demo/privacy/metrics.json").exists()
    assert privacy_eval.main([*arguments(save(study)), "--anyway"]) == 0  # its gates do decide
    assert result_of(study)["valid"]


def test_the_same_inputs_print_the_stored_result_and_others_do_not(study, capsys, monkeypatch):
    saved = save(study)
    assert privacy_eval.main(arguments(saved)) == 0
    first = capsys.readouterr().out
    calls = []
    evaluate = privacy_eval.evaluate_by_release_protocol
    monkeypatch.setattr(privacy_eval, "evaluate_by_release_protocol", lambda *args: calls.append(1) or evaluate(*args))
    assert privacy_eval.main(arguments(saved)) == 0
    assert capsys.readouterr().out.endswith(first)
    assert not calls
    assert privacy_eval.main([*arguments(saved), "--force"]) == 0
    save(study, erase=True)  # other weights under the same name
    assert privacy_eval.main(arguments(saved)) == 0
    assert privacy_eval.main(arguments(saved, "num_resamples=120")) == 0
    assert len(calls) == 3


def test_former_names_give_the_same_result_and_find_what_is_stored(study, capsys):
    """`released` is `release` and `neighbours` is `knn`, in parameters and in results of an earlier version."""
    saved = save(study)
    former = arguments(saved, "protocol=released", "attackers=('neighbours',)")
    assert privacy_eval.main(arguments(saved, "protocol=release", "attackers=('knn',)")) == 0
    capsys.readouterr()
    today = result_of(study)
    assert today["protocol"]["name"] == "release"
    path = study.runs / "demo/privacy/metrics.json"
    path.write_text(path.read_text().replace('"release"', '"released"').replace('"knn"', '"neighbours"'))
    written = path.stat().st_mtime_ns
    assert privacy_eval.main(former) == 0
    assert path.stat().st_mtime_ns == written  # the stored result answers
    assert privacy_eval.main([*former, "--force"]) == 0
    assert path.stat().st_mtime_ns > written
    assert result_of(study) == today | {"seconds": result_of(study)["seconds"]}


def test_labels_that_have_nothing_to_do_with_the_features_give_exit_code_3(study):
    path = study.data / "hmdb51/private_labels.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    draw = random.Random(0)
    for row in rows:
        row.update({name: draw.randrange(2) for name in VISPR_ATTRIBUTES})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = study.script("privacy_eval.py", *arguments("anon=False"))
    assert done.returncode == 3, done.stderr
    assert "FAILED  temporal: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("not valid")
    result = result_of(study)
    assert result["valid"] is False  # written all the same
    again = study.script("privacy_eval.py", *arguments("anon=False"))
    assert again.returncode == 3
    assert result_of(study) == result  # seconds too: it isn't computed again


def test_raw_only(study, capsys):
    assert privacy_eval.main(arguments("saved_fa_model=None")) == 0
    assert result_of(study)["views"]["temporal"]["mean"]["leakage"] == 1
    assert "raw only" in capsys.readouterr().out


def test_the_published_protocol_says_that_it_flatters(study, capsys):
    options = ("protocol=paper", "views=('static',)", "num_epochs=10", "batch_size=64")
    assert privacy_eval.main(arguments(save(study), *options)) == 0
    result = result_of(study)
    assert result["raw"]["cmap"] > result["chance_cmap"] + 0.1
    assert result["anonymized"]["cmap"] == pytest.approx(result["raw"]["cmap"], abs=0.02)  # an identity
    assert "optimistic" in capsys.readouterr().out


def test_one_checkpoint_in_its_batch_and_alone(study, capsys):
    """An anonymizer that attends over the batch: other subjects' attributes blur what one feature at a time shows."""
    anonymizer = build_anonymizer("transformer", WIDTH, num_layers=1, num_heads=1, attends_over="batch")
    attention = anonymizer.self_attn_blocks[0].self_attn
    with torch.no_grad():  # uniform attention, and x + 20 * mean(values): all rows of a batch move by the same vector
        attention.in_proj_weight.zero_()
        attention.in_proj_weight[2 * WIDTH :] = torch.eye(WIDTH)
        attention.in_proj_bias.zero_()
        attention.out_proj.weight.copy_(20 * torch.eye(WIDTH))
    path = study.root / "batch.pth"
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    saved = (f"saved_fa_model={path}", "batch_size=4")
    assert privacy_eval.main(arguments(*saved)) == 0
    alone = result_of(study)["views"]["temporal"]["mean"]["leakage"]
    assert privacy_eval.main(arguments(*saved, "serving=batch")) == 0
    in_batch = result_of(study)
    assert alone == pytest.approx(1, abs=0.02)  # alone it only scales by 21
    assert in_batch["views"]["temporal"]["mean"]["leakage_interval"][1] < 0.98
    assert in_batch["protocol"]["served"] == "batch"
    assert "IN BATCHES" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "culprit", "names"),
    [
        ("attackers=('logistc',)", "attackers", ("'logistc'", "'logistic'")),
        ("views=('statik',)", "views", ("'statik'", "'static'")),
        ("seeds=()", "seeds", "()"),
        ("num_pa=5", "num_pa", ("5", "'hmdb51'", "7")),
        ("protocol=papper", "params_demo_fb.py", ("'protocol'", "'papper'", "'paper'")),
        ("dataset=hmdb15", "dataset", ("'hmdb15'", "'hmdb51'")),
        ("saved_fa_model=nowhere.pth", "nowhere.pth", ()),
        ("fa_arch=transformer", "adapter.pth", ("arch = 'mlp'", "'transformer'")),
        ("num_resamples=0", "num_resamples", "0"),
    ],
)
def test_bad_parameters_get_one_line_and_exit_code_2(study, override, culprit, names):
    done = study.script("privacy_eval.py", *arguments(save(study), override))
    assert_refuses(done, culprit, names)
    assert not study.runs.exists()


def test_a_subject_in_two_splits_is_refused(study):
    path = study.data / "hmdb51/private_labels.csv"
    path.write_text(path.read_text().replace(",p20,", ",p0,"))
    done = study.script("privacy_eval.py", *arguments("anon=False"))
    assert_refuses(done, "private_labels.csv", ("'p0'", "train", "test"))


def test_an_anonymizer_of_another_width_is_refused(study):
    done = study.script("privacy_eval.py", *arguments(save(study, width=64)))
    assert_refuses(done, "adapter.pth", ("feature_dim = 64", "192"))


def test_params_fb_reads(study):
    from splavu.runtime import params

    loaded = params.load(REPOSITORY / "params/params_fb.py", privacy_eval.PrivacyEvalParams)
    assert loaded.protocol == "release"
    assert np.isclose(loaded.learning_rate_fb, 1e-3)
