"""Anonymizers that are to be compared: a line of settings each, and the command that makes it.

    {"fa_arch": "eraser+quantizer", "erase_rank": (32, 64), "bits": (6, 7)}   settings of multitask_train_fa.py
    {"fa_arch": ("random(keep=32)", "random(keep=64)")}                       a chain with its options
    {"fit": "leace"}, {"fit": "pca", "keep": (32, 64)}                        a closed form of `python -m splavu fit`

A tuple of values (in TOML and YAML a list) stands for a candidate each, all combinations of them. "params" names
another parameter file than the comparison's to start from, "name" another name than the settings themselves, "seeds"
others than the comparison's. A None takes away what a closed form would be given: {"fit": "eraser", "rank": 64,
"labels": None} knows no action.

Note: parameters of a part that a chain doesn't have, and those whose option the chain gives itself, are dropped from
the parameter file that it starts from, and only there. Given beside the chain they are refused, as everywhere.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splavu.anonymizers import pipeline
from splavu.anonymizers.closed_form.methods import METHODS, PARAMETERS
from splavu.commands.fit import FLAG_OF
from splavu.errors import UserError, nearest
from splavu.runtime import params
from splavu.runtime.schema import Schema, Seeds
from study import config
from study.datasets.loading import dataset_spec
from study.experiments.jobs import Job, Served, assignments
from study.experiments.runner import checkpoint_of
from study.training.anonymizer_params import PART_OF, AnonymizerParams

SHORT = {
    "erase_rank": "r",
    "bits": "b",
    "fb_loss_weight": "w",
    "privacy_objective": "",
    "noise_sd": "sd",
    "bottleneck": "d",
    "code_space": "",
    "code_dims": "d",
}
"""Settings in names."""
CHECKPOINT = "model_temp.pth"
LEFT_OUT = 0.5
"""Share of the actions that a `Candidate.twin` is not shown."""


@dataclass(frozen=True)
class Candidate(Schema):
    """One anonymizer of a comparison."""

    name: str
    settings: Mapping[str, Any]
    """Of multitask_train_fa.py, over those of `base`; of `splavu fit`, where `method` is given."""
    base: Path
    """Parameter file."""
    method: str | None = None
    """A closed form of `splavu fit`."""
    seeds: Seeds | None = None
    """None: the comparison's."""
    family: str = ""
    """The name that the candidates of an entry share."""

    @property
    def overrides(self) -> dict[str, Any]:
        """What replaces the parameters of `base`."""
        given = params.read_file(self.base)
        parts = {part.name: part for part in self._chain(given)}
        own = {name for name, (part, option) in PARAMETERS.items() if part in parts and parts[part].decides(option)}
        foreign = {name for name, part in PART_OF.items() if part not in parts} | own
        return {**{name: None for name in PART_OF if name in foreign and given.get(name) is not None}, **self.settings}

    def _chain(self, given: Mapping[str, Any]) -> tuple[pipeline.Part, ...]:
        return pipeline.parse(self.settings.get("fa_arch", given.get("fa_arch", AnonymizerParams.fa_arch)))

    def parameters(self, **changes: Any) -> AnonymizerParams:
        """The whole set of parameters.

        Raises:
            UserError: One is unknown, or they don't go together.
        """
        return params.build(
            AnonymizerParams, {**params.read_file(self.base), **self.overrides, **changes}, source=self.name
        )

    @property
    def as_parameters(self) -> Candidate:
        """The same as a chain of a parameter file; itself, if it is one.

        Raises:
            UserError: A closed form is given files of its own, which no parameter file names.
        """
        if self.method is None:
            return self
        form = METHODS[self.method]
        given = {name: value for name, value in self.settings.items() if value is not None}
        if unsayable := [name for name in given if name not in form.declared]:
            problem = f"'{unsayable[0]}' is for splavu fit: a parameter file has nothing like it"
            raise UserError(self.name, problem, "list it among the baselines, or leave the setting out")
        if "labels" in self.settings:
            given |= form.without_classes
        of_base = {name: None for name, (part, _) in PARAMETERS.items() if part == self.method}
        made = replace(self, method=None, settings={"fa_arch": str(pipeline.Part(self.method, given)), **of_base})
        made.parameters()
        return made

    @property
    def needs_seed(self) -> bool:
        """Whether a seed changes it."""
        if self.method is not None:
            return METHODS[self.method].seed != "none"
        chain = self.parameters().chain
        drawn = self.settings.get("left_out_actions")
        return bool(drawn) or pipeline.trained_part(chain) is not None or pipeline.draws(chain)

    @property
    def twin(self) -> Candidate:
        """The same, but not shown half of the actions; itself, if `splavu fit` makes it, which leaves none out."""
        if self.method is not None:
            return self
        settings = {**self.settings, "left_out_actions": LEFT_OUT}
        return replace(self, name=f"{self.name}-unseen", settings=settings)

    def job(self, runs: Path, run_root: Path, *, seed: int = 0, **changes: Any) -> Job:
        """The command that makes it, in a run folder of its own below `runs`."""
        name, seed = self.folder(seed), seed if self.needs_seed else 0
        if self.method is not None:
            return Job(name, (self._fit(runs / name / CHECKPOINT, seed, changes),), CHECKPOINT)
        values = {**self.overrides, "seed": seed, **changes, "run_id": (runs / name).relative_to(run_root).as_posix()}
        command = ("multitask_train_fa.py", "--params", str(self.base), "--quiet", *assignments(values))
        return Job(name, (command,), "results.json")

    def folder(self, seed: int) -> str:
        """Name of its run folder; one for all seeds where they change nothing."""
        return f"{self.name}-s{seed}" if self.needs_seed else self.name

    def checkpoint(self, runs: Path, seed: int) -> Path:
        """What its job has made."""
        made = runs / self.folder(seed)
        return made / CHECKPOINT if self.method else Path(json.loads((made / "results.json").read_text())["checkpoint"])

    def served(self, runs: Path, seed: int) -> Served:
        """The same for jobs after its own, before it is made."""
        name = self.folder(seed)
        return Served(str(runs / name / CHECKPOINT) if self.method else checkpoint_of(name), made_by=name)

    def _fit(self, out: Path, seed: int, changes: Mapping[str, Any]) -> tuple[str, ...]:
        p = params.build(AnonymizerParams, {**params.read_file(self.base), **changes}, source=self.base)
        spec = dataset_spec(p.ar_dataset, data_root=p.data_root)
        data, features = config.roots(p.data_root)
        files = {
            "static": spec.store_path(features, "train", p.ft_arch, static_frames=p.fb_frame_pool),
            "labels": data / spec.folder / f"{p.ar_dataset}_train_labels.csv",
            "private": data / spec.folder / "private_labels.csv",
            "subjects": data / spec.folder / "private_labels.csv",
        }
        options = {"raw": spec.store_path(features, "train", p.ft_arch), "out": out}
        options |= {flag: files[flag] for flag in (FLAG_OF[need] for need in METHODS[self.method].data)}
        options |= {"seed": seed} if self.needs_seed else {}
        options = {name: value for name, value in {**options, **self.settings}.items() if value is not None}
        given = [word for name, value in options.items() for word in _flag(name, value)]
        return ("-m", "splavu", "fit", self.method, *given, "--quiet")


def candidates(entries: Sequence[Mapping[str, Any]], base: str | Path) -> list[Candidate]:
    """All that `entries` name, each checked.

    Args:
        entries: As above.
        base: Parameter file to start from, named from the repository's folder.

    Raises:
        UserError: An entry is none, a setting is unknown or doesn't go with the others, two have one name.
    """
    found: dict[str, Candidate] = {}
    for entry in entries:
        for candidate in _expanded(entry, base):
            if candidate.name in found:
                raise UserError("candidates", f"'{candidate.name}' is there twice", 'tell them apart: "name"')
            found[candidate.name] = candidate
    return list(found.values())


def _expanded(entry: Mapping[str, Any], base: str | Path) -> list[Candidate]:
    if not isinstance(entry, Mapping) or not entry:
        raise UserError("candidates", f"{entry!r} is no candidate", 'write {"fa_arch": ...} or {"fit": ...}')
    settings = dict(entry)
    base = config.HERE / settings.pop("params", base)
    method, given_name, seeds = (settings.pop(key, None) for key in ("fit", "name", "seeds"))
    if method is not None and method not in METHODS:
        raise UserError("candidates", f"'{method}' isn't a closed form of splavu fit", nearest(method, METHODS))
    axes = {key: tuple(value) if isinstance(value, (tuple, list)) else (value,) for key, value in settings.items()}
    varied = [key for key, values in axes.items() if len(values) > 1]
    found = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        options = {key: value for key, value in chosen.items() if given_name is None or key in varied}
        head = given_name or method or options.pop("fa_arch", "candidate")
        options.pop("fa_arch", None)
        name = "-".join([_plain(head), *(f"{SHORT.get(key, key)}{value}" for key, value in options.items())])
        try:
            candidate = Candidate(name, chosen, base, method, seeds, head)
        except UserError as error:
            raise UserError(f"{error.culprit} of '{name}'", error.problem, "write a tuple such as (0, 1)") from None
        if method is None:
            candidate.parameters()
        found.append(candidate)
    return found


def _plain(head: str) -> str:
    """A name for folders: 'random(keep=32)+noise(sd=1)' is called 'random-keep32+noise-sd1'."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"[='\"]", "", head)).strip("-").replace("-+", "+")


def _flag(name: str, value: Any) -> tuple[str, ...]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return (f"--{flag}" if value else f"--no-{flag}",)
    return (f"--{flag}", str(value))
