"""From a published table to what has to be run: a cell is a number of a job, a job is commands of the existing scripts.

Note: a cell may run on other data than the paper's. Where the paper's encoder or set isn't there, `demo` features stand
in for VideoMAE-B, the first set with static clips for Kinetics-400, and private labels of that set for VISPR; a cell
says so (`Cell.on`, `Cell.stands_in`). Nothing stands in for a utility column: it is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from splavu.data.encoders import encoder_spec
from splavu.metrics.estimates import Interval
from study.check_data.inventory import Places, annotated_parts, split_parts, untrimmed_parts
from study.datasets.catalog import row_of
from study.datasets.untrimmed import ANNOTATED, UNTRIMMED
from study.experiments.jobs import Job, Served, mgfn_job, script_command, tridet_job
from study.reproduce.published_numbers import PublishedRow, PublishedTable


@dataclass(frozen=True)
class Column:
    """What is measured."""

    title: str
    dataset: str
    """That it is measured on; empty where a row says it."""


COLUMNS: Mapping[str, Column] = {
    "cmap": Column("VISPR cMAP", "vispr"),
    "cmap_released": Column("cMAP, strongest attackers", "vispr"),
    "k400": Column("K400 top-1", "k400"),
    "hmdb51": Column("HMDB51 top-1", "hmdb51"),
    "ucf101": Column("UCF101 top-1", "ucf101"),
    "thumos14": Column("THUMOS14 mAP", "thumos14"),
    "ucf_crime": Column("UCF-Crime AUC", "ucf_crime"),
    "female": Column("women", ""),
    "male": Column("men", ""),
    "overall": Column("overall", ""),
    "gap": Column("gap", ""),
    "pa_cmap": Column("PA-HMDB51 cMAP", "pa_hmdb51"),
    "pa_top1": Column("top-1", "pa_hmdb51"),
    "hypervolume": Column("hypervolume x 100", "pa_hmdb51"),
    "rank1": Column("rank-1", "casia_b"),
}
TRAINED_ON = ("k400", "hmdb51", "ucf101")
"""What adapters are trained on, the paper's choice first."""
TASKS = {"tad": "thumos14", "ad": "ucf_crime"}
TRIDET = {"demo": "thumos_demo", "i3d": "thumos_i3d", "vjepa": "thumos_vjepa"}
"""Encoder -> configuration of TriDet; VideoMAE's for the others."""


@dataclass(frozen=True)
class Cell:
    """One number of a table, ours."""

    row: PublishedRow
    column: str
    job: str | None = None
    """None: nothing can be run; if nothing is missing either, the row has no such number."""
    read: Callable[[Mapping[str, Any]], Interval | None] = field(default=lambda result: None)
    on: str = ""
    """Data set and encoder."""
    origin: str = ""
    """synthetic or real."""
    stands_in: str = ""
    """What the paper used, where that is another."""
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What isn't there -> its files, so far as they are known."""


@dataclass(frozen=True)
class Grid:
    """Everything that a table takes.

    Args:
        table: The published one.
        places: Where data and features lie; `encoder` is ignored.
        runs: Folder of the table's runs.
        run_root: Folder of all runs, that run names are relative to.
        quick: A few epochs of everything, to see that it runs.
    """

    table: PublishedTable
    places: Places
    runs: Path
    run_root: Path
    quick: bool = False

    @cached_property
    def built(self) -> tuple[tuple[Job, ...], tuple[Cell, ...]]:
        """Jobs, each after those that it needs, and a cell for each row and column."""
        jobs: dict[str, Job] = {}
        cells = [self._cell(row, column, jobs) for row in self.table.rows for column in self.table.columns]
        return tuple(jobs.values()), tuple(cells)

    # What is there.

    def missing(self, dataset: str, encoder: str, *splits: str, static: bool = False) -> tuple[str, ...]:
        """Files that a data set lacks, of all its splits or some."""
        data, features = self.places.data, self.places.features
        if dataset in UNTRIMMED:
            parts = untrimmed_parts(UNTRIMMED[dataset], self.places)
        elif dataset in ANNOTATED:
            parts = annotated_parts(ANNOTATED[dataset], self.places)
        else:
            parts = split_parts(row_of(dataset, data), self.places)
        spec = encoder_spec(encoder)
        wanted = [part for part in parts if not splits or part.split in splits]
        files = [data / file for part in wanted for file in part.label_files]
        files += [path for part in wanted for path in part.stores(spec)]
        if static:
            files.append(row_of(dataset, data).store_path(features, "train", encoder, static_frames=10))
        return tuple(dict.fromkeys(str(path) for path in files if not path.exists()))

    def encoder(self, row: PublishedRow) -> str:
        """The row's, or the demo's where only that one's features are there."""
        has_own, has_demo = (
            any(self.places.features.glob(f"*_{encoder_spec(name).file_tag}*")) for name in (row.encoder, "demo")
        )
        return "demo" if row.encoder == "videoMAE" and has_demo and not has_own else row.encoder

    def origin(self, dataset: str, encoder: str) -> str:
        manifest = self.places.data / "MANIFEST.json"
        rendered = json.loads(manifest.read_text()).get("sets", {}) if manifest.is_file() else {}
        return "synthetic" if encoder == "demo" or dataset in rendered else "real"

    def trained_on(self, row: PublishedRow, encoder: str) -> str:
        """The set that the row's adapter learns from."""
        if named := row.adapter.get("ar_dataset"):
            return named
        usable = (name for name in TRAINED_ON if not self.missing(name, encoder, "train", static=True))
        return next(usable, TRAINED_ON[0])

    def validates(self, dataset: str, encoder: str) -> str:
        """The split that epochs are chosen on: the data set's own, or, as the paper does, the test split."""
        spec = row_of(dataset, self.places.data)
        return "val" if "val" in spec.splits and not self.missing(dataset, encoder, "val") else "test"

    # Cells and their jobs.

    def _cell(self, row: PublishedRow, column: str, jobs: dict[str, Job]) -> Cell:
        encoder = self.encoder(row)
        dataset = row.dataset or COLUMNS[column].dataset
        stands_in = [f"{row.encoder} features"] if encoder != row.encoder else []
        if row.method == "pixels":
            return Cell(row, column, missing={"features of obfuscated videos": ()})
        if column == "hypervolume" and row.method == "raw":
            return Cell(row, column)  # no point of the curve
        lacking: dict[str, tuple[str, ...]] = {}

        def need(name: str, *splits: str, static: bool = False) -> None:
            if files := self.missing(name, encoder, *splits, static=static):
                key = f"{name} by {encoder}"
                lacking[key] = tuple(dict.fromkeys((*lacking.get(key, ()), *files)))

        if column in ("cmap", "cmap_released"):
            dataset, static = self._private(encoder)
            need(dataset, static=static)
            stands_in += ["vispr"] if dataset != "vispr" else []
        else:
            splits = ("train", self.validates(dataset, encoder), "test") if column in TRAINED_ON else ()
            need(dataset, *splits)
        adapter = None
        if row.method == "adapter":
            learnt_on = self.trained_on(row, encoder)
            need(learnt_on, "train", self.validates(learnt_on, encoder), static=True)
            if learnt_on != row.adapter.get("ar_dataset", TRAINED_ON[0]):
                stands_in.append(f"{TRAINED_ON[0]} to train on ({learnt_on} here)")
            for task, needed in TASKS.items():
                if row.adapter.get(f"ft_{task}_loss_weight"):
                    need(needed)
                elif f"ft_{task}_loss_weight" not in row.adapter and self.missing(needed, encoder):
                    stands_in.append(f"training with {task.upper()} too")
            if not lacking:
                adapter = self._adapter(row, encoder, learnt_on, jobs)
        about = {"on": f"{dataset}, {encoder}", "origin": self.origin(dataset, encoder)}
        if lacking:
            return Cell(row, column, missing=lacking, stands_in="; ".join(stands_in), **about)
        job, read = self._judged(column, dataset, encoder, adapter)
        jobs.setdefault(job.name, job)
        return Cell(row, column, job.name, read, stands_in="; ".join(stands_in), **about)

    def _private(self, encoder: str) -> tuple[str, bool]:
        """The set whose private attributes are attacked, and whether by static clips of its own."""
        if not self.missing("vispr", encoder):
            return "vispr", False
        folders = {name: self.places.data / row_of(name, self.places.data).folder for name in TRAINED_ON}
        labelled = [name for name, folder in folders.items() if (folder / "private_labels.csv").is_file()]
        usable = (name for name in labelled if not self.missing(name, encoder, static=True))
        return next(((name, True) for name in usable), ("vispr", False))

    def _adapter(self, row: PublishedRow, encoder: str, learnt_on: str, jobs: dict[str, Job]) -> str:
        """The job that trains a row's adapter, with whichever tasks have their data."""
        settings = dict(row.adapter) | {"ar_dataset": learnt_on, "val_split": self.validates(learnt_on, encoder)}
        starts: list[Job] = []
        for task, (dataset, detector, option, path) in {
            "tad": ("thumos14", self._tridet, "saved_ft_tad_model", ""),
            "ad": ("ucf_crime", self._mgfn, "saved_ft_ad_model", "model_temp.pth"),
        }.items():
            wanted = row.adapter.get(f"ft_{task}_loss_weight", 1)
            settings[f"ft_{task}_loss_weight"] = wanted if not self.missing(dataset, encoder) else 0
            if settings[f"ft_{task}_loss_weight"]:
                job = detector(encoder, None)
                starts.append(job)
                settings[option] = str(self.runs / job.name / path)
        settings.setdefault("ft_ar_loss_weight", 1)
        if self.quick:
            settings |= {"num_epochs": 2, "val_freq": 1}
        name = f"adapter_{_slug(json.dumps(dict(row.adapter), sort_keys=True)) or 'default'}_{encoder}"
        tad = {"tad_config": f"tridet/{TRIDET.get(encoder, 'thumos_videoMAE')}.yaml"}
        script = self._script("multitask_train_fa.py", _params("params/params_demo.py", "params/params_fa.py", encoder),
                              name, encoder, **tad, **settings)  # fmt: skip
        for job in (*starts, Job(name, (script,), "results.json", tuple(job.name for job in starts))):
            jobs.setdefault(job.name, job)
        return name

    def _judged(
        self, column: str, dataset: str, encoder: str, adapter: str | None
    ) -> tuple[Job, Callable[[Mapping[str, Any]], Interval | None]]:
        """The job that gives a column's number, and how it is read."""
        which = "raw" if adapter is None else "anonymized"
        if column in ("cmap", "cmap_released"):
            # The protocols' former names: a finished job is known by its command, and stays finished.
            protocol = "published" if column == "cmap" else "released"
            return self._privacy(dataset, encoder, adapter, protocol), _privacy_reader(protocol, which)
        if column == "thumos14":
            return self._tridet(encoder, adapter), lambda r: Interval.of(r["tad"]["average_map"])
        if column == "ucf_crime":
            return self._mgfn(encoder, adapter), lambda r: Interval.of(r["ad"]["roc_auc"])
        if column in GAP_COLUMNS:
            settings = {"datasets": (dataset,), **self._few(seeds=(0,))}
            job = self._folder_script("bias", f"bias_{dataset}", encoder, adapter, **settings)
            return job, lambda r: _interval(r["bias"]["datasets"][dataset]["features"][which][column])
        if column == "rank1":
            job = self._folder_script("gait", "gait", encoder, adapter)
            return job, lambda r: _interval(r["gait"]["comparisons"][which]["overall"]["rank1"])
        if COLUMNS[column].dataset == "pa_hmdb51":
            return self._pahmdb(encoder, adapter), _pahmdb_reader(column, which)
        return self._head(dataset, encoder, adapter), lambda r: Interval.of(r["test"]["top1"])

    def _head(self, dataset: str, encoder: str, adapter: str | None) -> Job:
        params = _params("params/params_demo_ft.py", "params/params_ft.py", encoder)
        settings = {"dataset": dataset, "val_split": self.validates(dataset, encoder), **self._few(val_freq=1)}
        name = f"head_{dataset}_{adapter or f'raw_{encoder}'}"
        command = self._script("train_ft.py", params, name, encoder, **settings, **self._reads(adapter))
        return Job(name, (command,), "results.json", (adapter,) if adapter else ())

    def _privacy(self, dataset: str, encoder: str, adapter: str | None, protocol: str) -> Job:
        params = _params("params/params_demo_fb.py", "params/params_fb.py", encoder)
        view = "temporal" if protocol == "released" and dataset != "vispr" else "static"
        settings: dict[str, Any] = {"dataset": dataset, "protocol": protocol, "views": (view,), "num_pa": None}
        settings |= {"seeds": (0,)} if protocol == "published" or self.quick else {}
        if self.quick:
            settings |= (
                {"num_epochs": 5} if protocol == "published" else {"attackers": ("logistic",), "num_resamples": 100}
            )
        name = f"privacy_{protocol}_{dataset}_{adapter or f'raw_{encoder}'}"
        command = self._script("privacy_eval.py", params, name, encoder, **settings, **self._reads(adapter))
        return Job(name, (command,), "metrics.json", (adapter,) if adapter else ())

    def _folder_script(self, folder: str, kind: str, encoder: str, adapter: str | None, **settings: Any) -> Job:
        """One of `bias/` and `gait/`, whose scripts and parameters are named alike."""
        name = f"{kind}_{adapter or f'raw_{encoder}'}"
        params = _params(f"{folder}/params_demo_{folder}.py", f"{folder}/params_{folder}.py", encoder)
        settings |= self._reads(adapter)
        command = self._script(f"{folder}/evaluate_{folder}.py", params, name, encoder, **settings)
        return Job(name, (command,), "results.json", (adapter,) if adapter else ())

    def _pahmdb(self, encoder: str, adapter: str | None) -> Job:
        name = f"pahmdb_{adapter or f'raw_{encoder}'}"
        settings = {
            "saved_fa_models": (str(self.runs / adapter / "model_temp.pth"),) if adapter else (),
            "transfer": not self.missing("vispr", encoder),
            **self._few(attackers=("logistic",)),
        }
        params = _params("pahmdb/params_demo_pahmdb.py", "pahmdb/params_pahmdb.py", encoder)
        command = self._script("pahmdb/eval_pahmdb.py", params, name, encoder, **settings)
        return Job(name, (command,), "results.json", (adapter,) if adapter else ())

    def _tridet(self, encoder: str, adapter: str | None) -> Job:
        folder = self.places.features / f"thumos14_{encoder_spec(encoder).file_tag}"
        return tridet_job(
            f"tridet/{TRIDET.get(encoder, 'thumos_videoMAE')}.yaml",
            adapter or f"raw_{encoder}",
            self.runs,
            (self.places.data / "thumos14/thumos14.json", folder),
            self._served(adapter),
            {"opt.epochs": 1, "opt.warmup_epochs": 1} if self.quick else {},
        )

    def _mgfn(self, encoder: str, adapter: str | None) -> Job:
        lists = self.places.data / "ucf_crime"
        folder = self.places.features / f"ucf_crime_{encoder_spec(encoder).file_tag}"
        return mgfn_job(
            f"mgfn_{adapter or f'raw_{encoder}'}",
            self.runs,
            (lists / "ucf-i3d.list", lists / "ucf-i3d-test.list", lists / "gt-ucf.npy", folder),
            self._served(adapter),
            preset=("@mgfn/demo.txt",) if encoder == "demo" else (),
            options={"--max-epoch": 1, "--lr": "0.001"} if self.quick else {},
        )

    def _served(self, adapter: str | None) -> Served | None:
        return None if adapter is None else Served(str(self.runs / adapter / "model_temp.pth"), adapter)

    def _reads(self, adapter: str | None) -> dict[str, Any]:
        saved = str(self.runs / adapter / "model_temp.pth") if adapter else None
        return {"anon": adapter is not None, "saved_fa_model": saved}

    def _few(self, **settings: Any) -> dict[str, Any]:
        """A few epochs, and `settings`, if it must be quick."""
        return {"num_epochs": 3, **settings} if self.quick else {}

    def _script(self, script: str, params: str, name: str, encoder: str, **settings: Any) -> tuple[str, ...]:
        settings = {"data_root": None, "ft_arch": encoder, **settings}
        return script_command(script, params, self.runs / name, self.run_root, settings)


GAP_COLUMNS = ("female", "male", "overall", "gap")


def _privacy_reader(protocol: str, which: str) -> Callable[[Mapping[str, Any]], Interval | None]:
    def read(result: Mapping[str, Any]) -> Interval | None:
        if protocol == "published":
            return Interval.of(result[which]["cmap"])
        (view,) = result["views"].values()
        found = view["mean"][which]
        return Interval.of(found["ap"], found["interval"])

    return read


def _pahmdb_reader(column: str, which: str) -> Callable[[Mapping[str, Any]], Interval | None]:
    def read(result: Mapping[str, Any]) -> Interval | None:
        found = result["pahmdb"]
        point = next((name for name in found["cross_fitted"] if name != "raw"), "raw") if which != "raw" else "raw"
        if column == "pa_cmap":
            mean = found["cross_fitted"][point]["mean"][which]
            return Interval.of(mean["ap"], mean["interval"])
        if column == "pa_top1":
            top1 = found["action"]["of"][point]
            return Interval.of(top1["top1"], top1["interval"])
        return _interval(found["curve"]["hypervolume"])

    return read


def _interval(found: Mapping[str, Any]) -> Interval:
    return Interval.of(found["value"], found["interval"])


def _params(demo: str, published: str, encoder: str) -> str:
    return demo if encoder == "demo" else published


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").replace("-loss-weight", "").replace("ft-", "").lower()
