"""What adding one thing costs: each is added to a copy of the repository, where its commands then run.

Which existing files it may touch, and where its new ones go, is read from CONTRIBUTING.md's table. The commands of a
test share a process, which spares them the imports.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import NUM_ACTIONS, REPOSITORY, Study, write_study

from splavu.anonymizers.loading import load_anonymizer
from splavu.stores import open_features

SPLITS = ("train", "val", "test")
SECTION = (REPOSITORY / "CONTRIBUTING.md").read_text().split("## How to add")[1].split("\n## ")[0]
RECIPES = [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (.*)\|$", SECTION, re.M)]
TOUCHED = {thing: re.findall(r"`([\w/]+\.py)`", files) for thing, files, _ in RECIPES}
"""Thing -> existing files that CONTRIBUTING.md has one change, in its order."""
FOLDERS = {thing: set(re.findall(r"`([\w/]+)/`", files)) for thing, files, _ in RECIPES}
"""Thing -> folders that it has new files written to."""
GROUPS = {thing: group.strip("`") for thing, _, group in RECIPES}
"""Thing -> group of the entry points by which an installed package brings one."""


class Copy:
    """The Python code of the repository, to change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("splavu", "study", "tridet", "mgfn", "feature_extraction", "params"):
            shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for path in REPOSITORY.glob("*.py"):
            shutil.copy(path, root)
        self.before = self._content()

    def _content(self) -> dict[str, bytes]:
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in self.root.rglob("*.py")}

    def write(self, name: str, text: str) -> None:
        """A new file."""
        assert not (self.root / name).exists()
        (self.root / name).write_text(text.lstrip("\n"))

    def insert(self, name: str, text: str, *, before: str = "", after: str = "") -> None:
        """Add text to a file, at the one place where `before` or `after` stands."""
        path, place = self.root / name, before or after
        assert path.read_text().count(place) == 1
        path.write_text(path.read_text().replace(place, after + text + before))

    def assert_costs(self, thing: str, num_touched: int = 1) -> None:
        """What changed are the first files of the recipe, and new files are where it says."""
        now = self._content()
        changed = {name for name, text in self.before.items() if now[name] != text}
        assert len(changed) == num_touched
        assert changed == set(TOUCHED[thing][:num_touched])
        assert {Path(name).parent.as_posix() for name in now.keys() - self.before.keys()} == FOLDERS[thing]


@pytest.fixture
def copy(tmp_path) -> Copy:
    return Copy(tmp_path / "copy")


PROGRAM = """
import importlib, json, sys
for name, *words in json.loads(sys.argv[1]):
    code = importlib.import_module(name).main(words)
    assert code == 0, (name, words, code)
"""
MODULES = {
    "splavu": "splavu.__main__",
    "study": "study.__main__",
    "extract": "feature_extraction.feature_extraction_action",
    "train_fa": "multitask_train_fa",
    "train_ft": "train_ft",
    "privacy_eval": "privacy_eval",
}
"""Command -> the module whose `main` is the program."""


def run(root: Path, study: Study, *commands: str | Sequence[object], path: Sequence[Path] = ()) -> str:
    """What commands print, run one after the other by the code in `root`; each must succeed.

    Args:
        root: A copy, or the repository.
        study: Where data, features and runs are.
        commands: The program, then its arguments; text is split at spaces.
        path: Folders with further packages.
    """
    lines = [list(map(str, line.split() if isinstance(line, str) else line)) for line in commands]
    calls = [[MODULES[name], *words, "--device", "cpu", "--quiet"] for name, *words in lines]
    environment = study.environment | {"PYTHONPATH": os.pathsep.join(map(str, [*path, root]))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(calls)],
        capture_output=True,
        text=True,
        cwd=study.root,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_settings(program: str, *settings: str) -> list[str]:
    """A command with parameters."""
    return [program, *(word for text in settings for word in ("--set", text))]


ATTACK = ("ft_arch=demo", "views=('temporal',)", "seeds=(0,)", "num_resamples=50", "anon=False", "run_id=attacked")


def attacked(study: Study) -> dict:
    """The result of `privacy_eval.py`."""
    return json.loads((study.runs / "attacked/metrics.json").read_text())


def audit(study: Study, pattern: str, *more: object) -> list[object]:
    """A quick audit of all splits."""
    labels = study.data / "hmdb51/private_labels.csv"
    fixed = ("--quick", "--attributes-only", "--workers", 1, "--out", study.root / "audit")
    return ["splavu", "audit", "--released", study.features / pattern, "--labels", labels, *fixed, *more]


def evidence(study: Study) -> dict:
    return json.loads((study.root / "audit/evidence.json").read_text())


# A data set


PENN = """
        CatalogueRow(
            "penn",
            "features_penn",
            "penn",
            4,
            lambda folder, split, keys: read.READER(folder / f"penn_{split}.SUFFIX"),
            splits=("train", "val", "test"),
            layout=Layout("penn/videos", ("penn/penn_{split}.SUFFIX",), BARE_NAME, {"train": 72, "test": 48}),
            public_class="PennFeaturesDataset",
        ),
"""
READ_LINES = '''
def read_line_labels(path: str | Path) -> dict[str, int]:
    """Lines `class name` (Penn) -> {name: class}."""
    lines = [line.split() for line in read_text(path).splitlines()]
    return {name: class_index(label, path, name, base=0) for label, name in lines}


'''


def penn_data(root: Path) -> Study:
    """The made-up study under another data set's name, its labels in both formats."""
    study = write_study(root)
    for path in study.features.iterdir():
        path.rename(path.with_name(path.name.replace("hmdb", "penn")))
    folder = (study.data / "hmdb51").rename(study.data / "penn")
    for split in SPLITS:
        labels = (folder / f"hmdb51_{split}_labels.csv").rename(folder / f"penn_{split}.csv")
        rows = (line.removesuffix(".avi").split(".avi,") for line in labels.read_text().splitlines()[1:])
        (folder / f"penn_{split}.txt").write_text("".join(f"{label} {name}\n" for name, label in rows))
    return study


@pytest.mark.parametrize(
    ("reader", "suffix", "num_touched"),
    [("read_csv_labels", "csv", 1), ("read_line_labels", "txt", 2)],
    ids=["known label format", "new label format"],
)
def test_a_data_set_is_a_row_and_a_reader_if_its_format_is_new(copy, tmp_path, reader, suffix, num_touched):
    catalog, labels = TOUCHED["data set"]
    row = PENN.lstrip("\n").replace("READER", reader).replace("SUFFIX", suffix)
    copy.insert(catalog, row, before='        CatalogueRow(\n            "k400",')
    if num_touched == 2:
        copy.insert(labels, READ_LINES.lstrip(), before="def read_json_labels(")
    copy.assert_costs("data set", num_touched)
    study = penn_data(tmp_path)
    common = ("data_root=None", "ft_arch=demo", "num_epochs=2")
    printed = run(
        copy.root,
        study,
        "study check-data penn --encoder demo",
        with_settings("train_fa", *common, "ar_dataset=penn", "num_layers_fa=1", "run_id=trained"),
        with_settings("train_ft", *common[:2], "dataset=penn", "anon=False", "num_epochs=20", "run_id=head"),
        with_settings("privacy_eval", *ATTACK, "dataset=penn", "attackers=('logistic',)", "num_pa=None"),
    )
    assert "1 of 1 usable" in printed
    assert "official 72" in printed
    assert (study.runs / "trained/model_temp.pth").exists()
    assert json.loads((study.runs / "head/results.json").read_text())["test"]["top1"] > 2 / NUM_ACTIONS
    found = attacked(study)["views"]["temporal"]["mean"]
    assert found["raw"]["ap"] > found["chance"] + 0.2
    program = "from feature_dl import PennFeaturesDataset as P; print(len(P('train', encoder='demo')))"
    command = [sys.executable, "-c", program]
    assert subprocess.check_output(command, text=True, cwd=copy.root, env=study.environment) == "72\n"


# An encoder


TOY = '''
"""The mean of each colour over the cells of a grid: an encoder without weights of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from splavu.data.encoders import EncoderSpec
from splavu.extraction.encoders.frozen import FrozenEncoder


class ToyEncoder(FrozenEncoder):
    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.cells = nn.AdaptiveAvgPool3d((1, 2, 2))
        self.register_buffer("scale", torch.full((12,), 2.0))
        self.freeze()

    def forward(self, clips: Tensor) -> Tensor:  # [B, T, 3, H, W] -> [B, 12]
        return self.cells(clips.transpose(1, 2)).flatten(1) * self.scale


def load_toy(spec: EncoderSpec, weights: str | None) -> ToyEncoder:
    return ToyEncoder(spec)
'''
TOY_ROW = """EncoderSpec(
                "toy",
                "ty",
                12,
                "{module}:load_toy",
                preprocessing=Preprocessing(short_side=16, crop=16),
            )"""


def extract_with_toy(root: Path, study: Study, *, path: Sequence[Path] = ()) -> str:
    """Videos to features, checked; a head and an anonymizer on them."""
    pytest.importorskip("av", reason="needs the extra 'video'")
    from test_your_data import write_video

    for seed, name in enumerate(("one", "two")):
        write_video(study.data / f"gym/videos/{name}.mp4", seed=seed)
    (study.data / "gym/labels.csv").write_text("filename,label,split\none.mp4,squat,train\ntwo.mp4,jump,test\n")
    train, test = (study.features / f"features_folder_gym_{split}_ty.h5" for split in ("train", "test"))
    head = ("anon=False", "val_split=None", "run_id=head")
    printed = run(
        root,
        study,
        "extract --dataset folder:gym --encoder toy --workers 0 --static 3 --static-augment never",
        "study check-data folder:gym --encoder toy",
        ["splavu", "verify", train, test],
        with_settings("train_ft", "dataset=folder:gym", "ft_arch=toy", "num_epochs=2", *head),
        ["splavu", "fit", "pca", "--keep", 1, "--raw", train, test, "--out", study.root / "gym.pth"],
        ["splavu", "anonymize", "--allow-fitted", "--aam", study.root / "gym.pth", test, study.root / "released.h5"],
        ["splavu", "verify", study.root / "released.h5"],
        path=path,
    )
    released = open_features(study.root / "released.h5")
    assert released["two"].shape == (1, 12)
    assert released.attributes["encoder"] == "toy"
    return printed


def test_an_encoder_is_a_row_and_its_loader(copy, tmp_path):
    row = TOY_ROW.format(module="splavu.extraction.encoders.toy")
    copy.insert(*TOUCHED["encoder"], f"            {row},\n", before='            EncoderSpec("videoMAE", "mae"')
    copy.write("splavu/extraction/encoders/toy.py", TOY)
    copy.assert_costs("encoder")
    study = Study(tmp_path)
    printed = extract_with_toy(copy.root, study)
    assert "encoder toy, 12 wide" in printed
    assert "1 of 1 usable" in printed
    assert printed.count("12 wide: no fault") == 3


# An attacker


CENTROID = '''
"""The nearer of two class means: an attacker that has nothing to tune."""

from __future__ import annotations

import numpy as np
import torch


class CentroidAttacker:
    def __init__(self, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.seed, self.device = seed, device

    def fit(self, features: np.ndarray, labels: np.ndarray, validation: tuple) -> CentroidAttacker:
        self.directions_ = np.zeros((features.shape[1], labels.shape[1]))
        for attribute, column in enumerate(labels.T):
            if {0, 1} <= set(column.tolist()):
                self.directions_[:, attribute] = features[column == 1].mean(axis=0) - features[column == 0].mean(axis=0)
        return self

    def scores(self, features: np.ndarray) -> np.ndarray:
        return features @ self.directions_
'''


def assert_attackers_found(study: Study) -> None:
    """Both evaluations name the one family that they used, and it found the attributes."""
    assert list(evidence(study)["families"]) == ["centroid"]
    assert evidence(study)["valid"]
    found = attacked(study)
    assert found["attackers"] == ["centroid"]
    mean = found["views"]["temporal"]["mean"]
    assert mean["raw"]["ap"] > mean["chance"] + 0.2


def test_an_attacker_is_a_module_and_its_row(copy, tmp_path):
    (rows,) = TOUCHED["attacker"]
    copy.write("splavu/attackers/centroid.py", CENTROID)
    imported = "from splavu.attackers.centroid import CentroidAttacker\n"
    copy.insert(rows, imported, before="from splavu.attackers.kernel import")
    copy.insert(
        rows, '        "centroid": AttackerSpec(CentroidAttacker, stochastic=False),\n', before='        "mlp": '
    )
    copy.assert_costs("attacker")
    study = write_study(tmp_path)
    run(
        copy.root,
        study,
        audit(study, "features_hmdb_*_demo.h5", "--families", "centroid"),
        with_settings("privacy_eval", *ATTACK, "dataset=hmdb51", "attackers=('centroid',)"),
    )
    assert_attackers_found(study)


# A closed form


MEAN_GAP = '''
"""Removes, for each private attribute, the direction between the means of those who have it and those who don't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.form import About, ClosedForm
from splavu.anonymizers.closed_form.projection import Projection, affine, describe_affine
from splavu.runtime.schema import Count, Schema


@dataclass(frozen=True)
class MeanGapOptions(Schema):
    most: Annotated[Count, About("attributes to remove at most, from the first")] = 100


def fit(data: FitData, options: MeanGapOptions, seed: int | None):
    features, columns = data.features.astype(np.float64), data.private.T[: options.most]
    gaps = [features[column == 1].mean(axis=0) - features[column == 0].mean(axis=0) for column in columns]
    removed, _ = np.linalg.qr(np.stack(gaps, axis=1))
    kept = np.eye(features.shape[1]) - removed @ removed.T
    return affine(Projection.of_matrix(kept, features.mean(axis=0), rank=removed.shape[1]), "mean_gap")


MEAN_GAP = ClosedForm(
    "mean_gap",
    "removes the direction between the means of each private attribute",
    fit=fit,
    options=MeanGapOptions,
    needs=("private",),
    describe=describe_affine,
)
'''
BASE = """
run_id = "chain"
ar_dataset = "hmdb51"
ft_arch = "demo"
fa_arch = "mean_gap(most=7)+quantizer(bits=6)"
"""
CANDIDATES = """
candidates = ({{"fit": "mean_gap", "most": 7}}, {more})
base = {base!r}
seeds = (0,)
"""
QUICK_SWEEP = """
run_id = "swept"
attackers = ("logistic",)
probes = ()
num_resamples = 100
most_lost = 50
"""


def fit_to_audit(study: Study, *more: object) -> list[Sequence[object]]:
    """Commands: the closed form by itself, and as a part of a chain, which is applied to all splits and audited."""
    features, chain, base = study.features, study.runs / "chain/model_temp.pth", study.root / "base.py"
    data = ("--raw", features / "features_hmdb_train_demo.h5", "--private", study.data / "hmdb51/private_labels.csv")
    stores = {features / f"features_hmdb_{split}_demo.h5": features / f"released_{split}.h5" for split in SPLITS}
    base.write_text(BASE)
    return [
        ["splavu", "fit", "mean_gap", "--most", 2, *data, "--out", study.root / "alone.pth"],
        ["train_fa", "--params", base],
        *(["splavu", "anonymize", "--aam", chain, raw, released] for raw, released in stores.items()),
        audit(study, "released_*.h5", "--raw", features / "features_hmdb_*_demo.h5", "--aam", chain, *more),
    ]


def assert_fitted_and_audited(study: Study) -> None:
    assert load_anonymizer(study.root / "alone.pth").architecture["rank"] == 2
    erase, quantize = load_anonymizer(study.runs / "chain/model_temp.pth").architecture["stages"]
    assert (erase["method"], erase["rank"], quantize["arch"]) == ("mean_gap", 7, "quantizer")
    assert evidence(study)["valid"]
    assert evidence(study)["headline"]["reduction"]["value"] > 0.5


@pytest.mark.slow
def test_a_closed_form_is_a_module_with_its_row(copy, tmp_path):
    """From fit to audit; `compare` plans with it, and `sweep` chooses it."""
    (table,) = TOUCHED["closed form"]
    copy.write("splavu/anonymizers/closed_form/mean_gap.py", MEAN_GAP)
    imported = "from splavu.anonymizers.closed_form.mean_gap import MEAN_GAP\n"
    copy.insert(table, imported, before="from splavu.anonymizers.closed_form.noise import")
    copy.insert(table, "MEAN_GAP, ", after="BUILT_IN = (")
    copy.assert_costs("closed form")
    study, base = write_study(tmp_path), str(tmp_path / "base.py")
    compared, swept = tmp_path / "compared.py", tmp_path / "swept.py"
    chains = {"fa_arch": ("mean_gap(most=2)+encoder", "mean_gap+noise(sd=0.5)")}
    compared.write_text(CANDIDATES.format(base=base, more=chains))
    swept.write_text(CANDIDATES.format(base=base, more="") + QUICK_SWEEP)
    printed = run(
        copy.root,
        study,
        *fit_to_audit(study),
        ["study", "compare", "--dry-run", "--params", compared],
        ["study", "sweep", "--params", swept],
    )
    assert_fitted_and_audited(study)
    assert "splavu fit mean_gap" in printed
    assert "mean_gap(most=2)+encoder" in printed
    assert "mean_gap(most=7)" in (study.runs / "swept/chosen.py").read_text()


# A loss term


TERM = '''
def clip_norms(inputs: TermInputs) -> Tensor:
    """Anonymized clips shall be short."""
    return inputs.anonymized_clips.norm(dim=1).sum() / inputs.clips.num_total


'''


def test_a_loss_term_is_a_function_and_its_line(copy, tmp_path):
    """A parameter file names it, as a term of its own or as the privacy objective."""
    (objectives,) = TOUCHED["loss term"]
    table = "OBJECTIVES: dict[str, Objective] = {\n"
    copy.insert(objectives, TERM.lstrip(), before=table)
    copy.insert(objectives, '    "clip_norms": Objective(clip_norms),\n', after=table)
    copy.assert_costs("loss term")
    study = write_study(tmp_path)
    common = ("ar_dataset=hmdb51", "ft_arch=demo", "num_layers_fa=1", "num_epochs=2", "learning_rate_fa=1e-3")
    ways = {"extra_terms={'clip_norms': 0.1}": "clip_norms", "privacy_objective=clip_norms": "privacy"}
    run(copy.root, study, *(with_settings("train_fa", *common, way, f"run_id={name}") for way, name in ways.items()))
    for name in ways.values():
        lines = (study.runs / name / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)[f"loss/{name}"] for line in lines]
        assert 0 < losses[1] < losses[0]


# From another package


@pytest.fixture
def package(tmp_path) -> Path:
    """A folder of packages, one of which brings an attacker, a closed form and an encoder."""
    folder = tmp_path / "site-packages"
    about = folder / "more_rows-1.0.dist-info"
    (folder / "more_rows").mkdir(parents=True)
    about.mkdir()
    spec = "\n\nfrom splavu.attackers import AttackerSpec\n\nROW = AttackerSpec(CentroidAttacker, stochastic=False)\n"
    row = f"\n\nfrom splavu.data.encoders import Preprocessing\n\nROW = {TOY_ROW.format(module='more_rows.toy')}\n"
    sources = {"__init__": "", "centroid": CENTROID + spec, "mean_gap": MEAN_GAP, "toy": TOY + row}
    for name, text in sources.items():
        (folder / f"more_rows/{name}.py").write_text(text)
    rows = {"attacker": "centroid:ROW", "closed form": "mean_gap:MEAN_GAP", "encoder": "toy:ROW"}
    entries = (f"[{GROUPS[thing]}]\n{row.split(':')[0]} = more_rows.{row}\n" for thing, row in rows.items())
    (about / "entry_points.txt").write_text("".join(entries))
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: more-rows\nVersion: 1.0\n")
    return folder


@pytest.mark.slow
def test_a_package_of_its_own_brings_an_attacker_and_a_closed_form(package, tmp_path):
    study = write_study(tmp_path)
    privacy = with_settings("privacy_eval", *ATTACK, "dataset=hmdb51", "attackers=('centroid',)")
    run(REPOSITORY, study, *fit_to_audit(study, "--families", "centroid"), privacy, path=[package])
    assert_fitted_and_audited(study)
    assert_attackers_found(study)


def test_a_package_of_its_own_brings_an_encoder(package, tmp_path):
    assert "encoder toy, 12 wide" in extract_with_toy(REPOSITORY, Study(tmp_path), path=[package])
