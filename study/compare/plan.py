"""What a comparison takes: every anonymizer made, released, audited and put to every task, as jobs.

Note: a seed covers everything: the anonymizer's training, the heads and detectors behind it, and the attackers. A
seed's figures are compared with raw features of the same seed. What no seed changes (a closed form) is built once, but
evaluated once per seed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval, MinLen

from splavu.errors import UserError
from splavu.runtime import params
from splavu.runtime.schema import RunName, Schema, Seeds
from study import config
from study.datasets.loading import dataset_spec
from study.datasets.untrimmed import untrimmed_spec
from study.experiments.candidates import Candidate, candidates
from study.experiments.jobs import Job, Served, mgfn_job, script_command, tridet_job, waits_for
from study.training.anonymizer_params import AnonymizerParams

RAW = "raw"
"""The first row: features as the encoder gives them."""
TaskName = Literal["ar", "tad", "ad"]
TASKS: tuple[TaskName, ...] = ("ar", "tad", "ad")
TRAININGS_APART = 100
"""Seeds of further trainings of a detector are so far from the first one's."""
AUDITS_APART = 10
"""First seeds of two audits are so far apart: no attacker is seeded twice."""
_ANONYMIZE = ("-m", "splavu", "anonymize", "--quiet", "--allow-fitted")


@dataclass(frozen=True)
class CompareParams(Schema):
    """Parameters of a comparison; see params/params_compare.py."""

    candidates: Annotated[tuple, MinLen(1)]
    """An entry an anonymizer, or several (`study/experiments/candidates.py`), in the order of the table."""
    run_id: RunName = "compare"
    """Folder below config.RUNS."""
    base: str = "params/params_robust.py"
    """Parameter file of multitask_train_fa.py that candidates start from; it names the data, too."""
    data_root: str | None = None
    """Another one than that of `base`."""
    head_params: str = "params/params_demo_ft.py"
    """Parameter file of train_ft.py: how the head for actions is trained."""
    tad_config: str = "tridet/thumos_demo.yaml"
    """TriDet's."""
    ad_preset: str = "@mgfn/demo.txt"
    """MGFN's options as on its command line."""
    seeds: Seeds = (0, 1, 2)
    audit_seeds: Annotated[int, Interval(ge=1, le=AUDITS_APART)] = 5
    """Of the attackers that draw, in each audit; there is an audit a seed."""
    audit_attributes: tuple[str, ...] | None = None
    """Columns of the private labels that attackers are trained for; None: all. A class or a value costs several times
    what a column of 0 and 1 does."""
    tasks: tuple[TaskName, ...] = TASKS
    ad_trainings: Annotated[int, Interval(ge=1, le=10)] = 1
    """Of MGFN for each seed: its figure moves by points between trainings, so the mean of three says little."""


@dataclass(frozen=True)
class Entry:
    """A row of the table, and the jobs behind its cells."""

    name: str
    candidate: Candidate | None
    """None: raw features."""
    seeds: tuple[int, ...]
    jobs: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    """'make', 'release', 'audit' and tasks -> seed -> name of the job."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison takes.

    Args:
        p: What is compared.
        run_root: Folder of all runs, that run names are relative to.
        quick: Audits are quick ones; they are kept apart from whole ones.
    """

    p: CompareParams
    run_root: Path
    quick: bool = False

    @property
    def runs(self) -> Path:
        return self.run_root / self.p.run_id

    @cached_property
    def setting(self) -> AnonymizerParams:
        """The base's parameters, of which the data count."""
        root = {} if self.p.data_root is None else {"data_root": self.p.data_root}
        given = {**params.read_file(config.HERE / self.p.base), **root}
        made = params.build(AnonymizerParams, given, source=self.p.base)
        if made.ar_dataset is None:
            raise UserError(self.p.base, "names no ar_dataset, whose people are audited", "add ar_dataset = ...")
        return made

    @property
    def data(self) -> dict[str, Any]:
        """Parameters that say which data, the same for all candidates."""
        return {name: getattr(self.setting, name) for name in ("ar_dataset", "ft_arch", "data_root", "val_split")}

    @cached_property
    def raw_stores(self) -> dict[str, Path]:
        """Split -> store of raw features: attackers learn on the first, are tuned on the second, judged on the third.

        Raises:
            UserError: One isn't there: nothing could be audited.
        """
        spec = dataset_spec(self.setting.ar_dataset, data_root=self.setting.data_root)
        _, features = config.roots(self.setting.data_root)
        splits = dict.fromkeys(("train", self.setting.val_split, "test"))
        stores = {split: spec.store_path(features, split, self.setting.ft_arch) for split in splits}
        for path in (*stores.values(), self.private_labels):
            if not path.exists():
                raise UserError(path, "isn't there, and every audit reads it", "name another data_root, or make it")
        return stores

    @property
    def private_labels(self) -> Path:
        """Who is in which video, and what is private about them."""
        spec = dataset_spec(self.setting.ar_dataset, data_root=self.setting.data_root)
        return config.roots(self.setting.data_root)[0] / spec.folder / "private_labels.csv"

    @cached_property
    def left_out(self) -> dict[str, str]:
        """TaskName -> the file for want of which it is left out."""
        files = {"ar": (), "tad": self._tad_files, "ad": self._ad_files}
        found = {}
        for task in self.p.tasks:
            if absent := [str(path) for path in files[task] if not path.exists()]:
                found[task] = absent[0]
        return found

    @property
    def tasks(self) -> tuple[TaskName, ...]:
        """Those whose data is there."""
        return tuple(task for task in TASKS if task in self.p.tasks and task not in self.left_out)

    @cached_property
    def built(self) -> tuple[tuple[Job, ...], tuple[Entry, ...]]:
        """Jobs, each after those that it needs and the more urgent before the others, and the rows of the table.

        Raises:
            UserError: A candidate is none, or two would share a folder; data or a parameter file isn't there.
        """
        found = candidates(self.p.candidates, self.p.base)
        seeds = {candidate.name: candidate.seeds or self.p.seeds for candidate in found}
        needed = tuple(sorted({seed for some in seeds.values() for seed in some}))  # to compare with
        if self.p.ad_trainings > 1 and needed[-1] >= TRAININGS_APART:
            problem = f"{needed[-1]} is a further training's, of ad_trainings = {self.p.ad_trainings}"
            raise UserError("seeds", problem, f"take seeds below {TRAININGS_APART}")
        jobs: dict[str, Job] = {}
        entries = [self._entry(RAW, None, needed, jobs)]
        entries += [self._entry(candidate.name, candidate, seeds[candidate.name], jobs) for candidate in found]
        return tuple(jobs.values()), tuple(entries)

    def _entry(self, name: str, candidate: Candidate | None, seeds: tuple[int, ...], jobs: dict[str, Job]) -> Entry:
        entry = Entry(name, candidate, seeds, {})

        def add(kind: str, seed: int, job: Job) -> None:
            if jobs.get(job.name, job) != job:
                raise UserError("candidates", f"'{name}' and another share the folder {job.name}", 'give it a "name"')
            jobs[job.name] = job
            entry.jobs.setdefault(kind, {})[seed] = job.name

        if candidate is not None:
            for seed in seeds:
                add("make", seed, candidate.job(self.runs, self.run_root, seed=seed, **self.data))
        served = {seed: None if candidate is None else candidate.served(self.runs, seed) for seed in seeds}
        if "ar" in self.tasks:
            for seed in seeds:
                add("ar", seed, self._head(name, seed, served[seed]))
        if candidate is not None:
            for seed in seeds:
                add("release", seed, self._release(served[seed]))
                add("audit", seed, self._audit(name, seed, served[seed]))
        for task, job, times in (("tad", self._tridet, 1), ("ad", self._mgfn, self.p.ad_trainings)):
            if task in self.tasks:
                for again, seed in itertools.product(range(times), seeds):
                    training = seed + TRAININGS_APART * again
                    add(task, training, job(name, training, served[seed]))
        return entry

    # Jobs.

    def _head(self, name: str, seed: int, served: Served | None) -> Job:
        folder = f"head_{_plain(name)}-s{seed}"
        settings = {
            "dataset": self.setting.ar_dataset,
            "ft_arch": self.setting.ft_arch,
            "data_root": self.setting.data_root,
            "val_split": self.setting.val_split,
            "seed": seed,
            "anon": served is not None,
            "saved_fa_model": None if served is None else served.checkpoint,
        }
        command = script_command("train_ft.py", self.p.head_params, self.runs / folder, self.run_root, settings)
        return Job(folder, (command,), "results.json", waits_for(served))

    def _release(self, served: Served) -> Job:
        folder = f"released_{served.made_by}"
        commands = [
            # The training store is released to train attackers on, and nobody gets it.
            (*_ANONYMIZE, "--aam", served.checkpoint, *(str(path) for path in paths))
            for paths in ((raw, self.runs / folder / raw.name) for raw in self.raw_stores.values())
        ]
        return Job(folder, tuple(commands), self.raw_stores["test"].name, waits_for(served))

    def _audit(self, name: str, seed: int, served: Served) -> Job:
        folder = f"audit{'-quick' if self.quick else ''}_{_plain(name)}-s{seed}"
        release = f"released_{served.made_by}"
        options = {"--labels": self.private_labels, "--aam": served.checkpoint, "--out": self.runs / folder}
        options |= {"--workers": 1, "--seed": AUDITS_APART * seed, "--seeds": self.p.audit_seeds}  # seeds begin there
        if self.p.audit_attributes is not None:
            options["--attributes"] = ",".join(self.p.audit_attributes)
        given = [str(part) for pair in options.items() for part in pair]
        command = ["-m", "splavu", "audit", "--anyway", "--ignore-names", "--raw", *map(str, self.raw_stores.values())]
        command += ["--released", *(str(self.runs / release / path.name) for path in self.raw_stores.values()), *given]
        quickly = ["--quick"] if self.quick else []
        return Job(folder, ((*command, *quickly, "--quiet"),), "evidence.json", (release,))

    def _tridet(self, name: str, seed: int, served: Served | None) -> Job:
        suffix = f"{_plain(name)}-s{seed}"
        return tridet_job(self.p.tad_config, suffix, self.runs, self._tad_files, served, {"init_rand_seed": seed})

    def _mgfn(self, name: str, seed: int, served: Served | None) -> Job:
        folder, preset = f"mgfn_{_plain(name)}-s{seed}", self.p.ad_preset.split()
        return mgfn_job(folder, self.runs, self._ad_files, served, preset=preset, options={"--seed": seed})

    @property
    def _tad_files(self) -> tuple[Path, Path]:
        s = self.setting
        return untrimmed_spec(s.tad_dataset).paths(s.ft_arch, s.data_root)

    @property
    def _ad_files(self) -> tuple[Path, ...]:
        s = self.setting
        spec = untrimmed_spec(s.ad_dataset)
        data, _ = config.roots(s.data_root)
        return (*(data / file for file in spec.layout.label_files), spec.paths(s.ft_arch, s.data_root)[1])


def _plain(name: str) -> str:
    """As every program takes it for a folder: MGFN has no '+' in names."""
    return re.sub(r"[^\w.-]+", ".", name)
