"""`splavu.Anonymizer`, its folders and their model cards."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import WIDTH
from refusals import refused
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import splavu
from splavu.anonymizers import build_anonymizer
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.pipeline import build_pipeline, parse
from splavu.release.model_card import read_audit
from splavu.release.pretrained import MAP_FILE, load_pretrained
from splavu.runtime import checkpoints

safetensors = pytest.importorskip("safetensors", reason="needs the extra 'hub'")


@pytest.fixture(params=["mlp", "transformer"])
def network(request):
    torch.manual_seed(0)
    return build_anonymizer(request.param, WIDTH, identity=False).eval()


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(70, WIDTH))


def saved(network, path):
    return checkpoints.write(
        path, {"fa_model_state_dict": network.state_dict(), "fa_architecture": network.architecture}
    )


def evidence(path, *, weights="", valid=True, verdict="leaks"):
    """As splavu audit writes it, as far as a card reads it."""

    def estimate(value):
        return {"value": value, "low": value - 0.05, "high": value + 0.05, "chance": 0.5}

    attribute = {"name": "gender", "ap": estimate(0.81234), "auc": estimate(0.8), "leakage": estimate(0.9)}
    content = {
        "schema": "splavu-audit/2",
        "headline": {"sentence": "The strongest attacker keeps 90 % of what it finds in raw features.", "unit": "clip"},
        "strongest": {"clip": {"attributes": [{**attribute, "verdict": verdict}]}},
        "files": [{"role": "released", "attributes": {"anonymizer_sha256": weights} if weights else {}}],
        "valid": valid,
    }
    path.write_text(json.dumps(content))
    return path


def front_matter(folder):
    _, head, body = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_transform_gives_each_row_as_if_it_came_alone(network, rows, tmp_path):
    anonymizer = splavu.Anonymizer.from_pretrained(saved(network, tmp_path / "aam.pth"))
    released = anonymizer.transform(rows)
    assert released.dtype == np.float32
    with torch.no_grad():
        alone = [network(torch.from_numpy(row)).numpy() for row in rows.astype(np.float32)]
    np.testing.assert_array_equal(released, np.stack(alone))


def test_it_goes_where_scikit_learn_puts_transformers(network, rows):
    anonymizer = splavu.Anonymizer(network)
    labels = np.arange(len(rows)) % 2
    pipeline = make_pipeline(anonymizer, LogisticRegression(max_iter=50))
    released = anonymizer.fit_transform(rows, labels)
    expected = LogisticRegression(max_iter=50).fit(released, labels).predict(released)
    np.testing.assert_array_equal(pipeline.fit(rows, labels).predict(rows), expected)
    assert len(cross_val_score(clone(pipeline), rows, labels, cv=2)) == 2
    assert len(set(anonymizer.get_feature_names_out())) == anonymizer.n_features_in_ == WIDTH


def test_what_can_not_be_transformed_is_told(network, rows):
    anonymizer = splavu.Anonymizer(network)
    with pytest.raises(ValueError, match=r"\b5\b.*\b192\b"):
        anonymizer.transform(rows[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        anonymizer.transform(np.full((2, WIDTH), np.nan))
    with pytest.raises(ValueError, match="2D array"):
        anonymizer.transform(rows[0])


def test_a_saved_folder_gives_the_same_bits(network, rows, tmp_path):
    anonymizer = splavu.Anonymizer(network)
    loaded = splavu.Anonymizer.from_pretrained(anonymizer.save_pretrained(tmp_path / "mine"))
    assert (loaded.architecture, loaded.sha256) == (anonymizer.architecture, anonymizer.sha256)
    np.testing.assert_array_equal(loaded.transform(rows), anonymizer.transform(rows))
    assert not list((tmp_path / "mine").glob(".*"))


def test_the_card_carries_the_audits_numbers(network, tmp_path):
    anonymizer = splavu.Anonymizer(network)
    found = evidence(tmp_path / "evidence.json", weights=anonymizer.sha256)
    head, body = front_matter(anonymizer.save_pretrained(tmp_path / "mine", audit=found))
    assert head["splavu"]["weights_sha256"] == anonymizer.sha256
    assert head["splavu"]["architecture"] == anonymizer.architecture
    assert "keeps 90 %" in head["splavu"]["audit"]
    assert "| gender | 81.2 [76.2, 86.2] | 50.0 | 0.800 [0.750, 0.850] | 0.90 [0.85, 0.95] | leaks |" in body


def test_a_card_without_an_audit_or_with_a_failed_one_says_so(network, tmp_path):
    anonymizer = splavu.Anonymizer(network)
    head, body = front_matter(anonymizer.save_pretrained(tmp_path / "mine"))
    assert head["splavu"]["audit"] == "not audited"
    assert "**Not audited.**" in body
    failed = evidence(tmp_path / "evidence.json", valid=False)
    head, body = front_matter(anonymizer.save_pretrained(tmp_path / "mine", audit=failed))
    assert head["splavu"]["audit"].startswith("not valid")
    assert "do not rely" in body


def test_evidence_that_is_none_or_of_another_anonymizer_is_refused(network, tmp_path):
    anonymizer = splavu.Anonymizer(network)
    with refused("evidence.json"):
        anonymizer.save_pretrained(tmp_path / "mine", audit=evidence(tmp_path / "evidence.json", weights="0" * 64))
    (tmp_path / "notes.json").write_text('{"headline": {}}')
    with refused("notes.json"):
        anonymizer.save_pretrained(tmp_path / "mine", audit=tmp_path / "notes.json")
    assert not (tmp_path / "mine").exists()


def test_a_card_reads_what_the_audit_writes():
    """The names a card looks up are fields of the audit's own dataclasses."""
    import dataclasses

    evidence_module = pytest.importorskip("splavu.audit.evidence", reason="no audit in this version")
    fields = {
        name: {field.name for field in dataclasses.fields(getattr(evidence_module, name))}
        for name in ("Evidence", "Headline", "UnitResult", "AttributeResult", "Estimate")
    }
    assert fields["Evidence"] >= {"schema", "headline", "strongest", "files"}
    assert fields["Headline"] >= {"sentence", "unit"}
    assert fields["UnitResult"] >= {"attributes"}
    assert fields["AttributeResult"] >= {"name", "ap", "auc", "leakage", "verdict"}
    assert fields["Estimate"] >= {"value", "low", "high", "chance"}


def test_damaged_folders_are_refused(network, tmp_path):
    folder = splavu.Anonymizer(network).save_pretrained(tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "weights_sha256": "0" * 64}))
    with refused("model.safetensors"):
        splavu.Anonymizer.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with refused("config.json"):
        splavu.Anonymizer.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with refused("model.safetensors"):
        splavu.Anonymizer.from_pretrained(folder)
    (folder / "config.json").unlink()
    saved(network, folder / "model_temp.pth")
    with refused("mine"):
        splavu.Anonymizer.from_pretrained(folder)


def test_the_floor_and_the_place_of_what_was_fitted_travel_along(tmp_path):
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(10), 20)
    features = (rng.normal(size=(10, 24))[who] + rng.normal(size=(200, 24))).astype(np.float32)
    data = FitData(features, subjects=np.array([f"s{number}" for number in who]))
    made = build_pipeline(parse("quantizer(bits=4)"), data)
    made.fitted_to = data.fitted_to
    folder = splavu.Anonymizer(made).save_pretrained(tmp_path / "it")
    again = load_pretrained(folder)
    assert again.architecture["support"] == made.architecture["support"]
    np.testing.assert_allclose(again.fitted_to.map.distances(features), made.fitted_to.map.distances(features))
    assert not len(again.fitted_to.hashes)
    (folder / MAP_FILE).write_bytes(b"no tensors")
    with refused(MAP_FILE):
        load_pretrained(folder)


def test_what_mixes_a_batch_is_refused(tmp_path):
    mixing = build_anonymizer("transformer", WIDTH, attends_over="batch")
    with refused("anonymizer"):
        splavu.Anonymizer.from_pretrained(saved(mixing, tmp_path / "aam.pth"))


def test_a_hub_name_is_asked_from_the_hub_and_an_error_is_one_line(network, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="needs the extra 'hub'")
    folder = splavu.Anonymizer(network).save_pretrained(tmp_path / "mine")
    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, revision))
        if name == "lab/gone":
            raise hub.errors.LocalEntryNotFoundError("no connection\nand more lines")
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    loaded = splavu.Anonymizer.from_pretrained("lab/anonymizer", revision="v1")
    assert loaded.architecture == network.architecture
    with refused("lab/gone"):
        splavu.Anonymizer.from_pretrained("lab/gone")
    assert asked == [("lab/anonymizer", "v1"), ("lab/gone", None)]


def test_importing_splavu_stays_light():
    program = (
        "import sys, splavu; print([n for n in ('torch', 'sklearn', 'numpy') if n in sys.modules]); splavu.Anonymizer"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_read_audit_without_a_unit_takes_clips(tmp_path):
    path = evidence(tmp_path / "evidence.json")
    content = json.loads(path.read_text())
    content["headline"]["unit"] = None
    path.write_text(json.dumps(content))
    assert [row["name"] for row in read_audit(path).attributes] == ["gender"]
