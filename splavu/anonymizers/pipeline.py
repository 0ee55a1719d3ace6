"""Anonymizers as chains of parts, 'eraser(rank=32)+encoder+quantizer(bits=8)': closed forms around one that is trained.

A chain is [closed forms that erase+][transformer|mlp|encoder][+quantizer][+noise], any part left out, in this order:
erasure runs first; only noise may follow quantization. Each part is fitted to what the ones before it release, and then
stays as it is: an eraser before the training, a quantizer after it. Options of closed forms stand in parentheses; those
that parameter files know by names of their own (`erase_rank`, `bits`, ...) may be given there instead.

Note: only some parts guarantee anything (`splavu.anonymizers.guarantees`). Training adds nothing to it.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from splavu._version import __version__
from splavu.anonymizers.base import Anonymizer
from splavu.anonymizers.chain import Chain
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.methods import METHODS, PARAMETERS
from splavu.anonymizers.closed_form.projection import pca
from splavu.anonymizers.encoder import EncoderAnonymizer
from splavu.anonymizers.guarantees import guarantees, stages_of
from splavu.anonymizers.quantizer import Quantizer
from splavu.errors import UserError, nearest

TRAINED = ("transformer", "mlp", "encoder")
"""Parts that are trained by gradient."""
PLACES = ("erase", "train", "quantize", "noise")
"""In the order of a chain. Several closed forms may erase; of the others there is one."""


@dataclass(frozen=True)
class Part:
    """A part of a chain, with the options that were given for it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({options})" if options else self.name

    def decides(self, option: str) -> bool:
        """Whether the options that were given settle this one."""
        one_of = METHODS[self.name].one_of
        return option in self.options or (option in one_of and any(name in self.options for name in one_of))

    @property
    def place(self) -> str:
        return "train" if self.name in TRAINED else METHODS[self.name].place


def parse(chain: str) -> tuple[Part, ...]:
    """The parts of a chain.

    Raises:
        UserError: Blames `fa_arch`: a part is unknown, stands twice or out of order, two are to be trained, or the text
            can't be read. Options are checked by `check`.
    """
    parts = tuple(_read(chain))
    for part in parts:
        if part.name not in TRAINED and part.name not in METHODS:
            known = nearest(part.name, (*TRAINED, *METHODS))
            raise UserError("fa_arch", f"'{chain}' has the part '{part.name}', which is unknown", known)
        if part.name in TRAINED and part.options:
            problem = f"'{chain}' gives options to {part.name}, which is trained"
            raise UserError(
                "fa_arch", problem, "its options are parameters: num_layers_fa, num_heads, window, bottleneck"
            )
    for one, other in itertools.combinations(parts, 2):
        if one.name == other.name or (one.place == other.place != "erase"):
            raise UserError("fa_arch", f"'{chain}' has {one.name} and {other.name}", f"take one {other.name}")
    if parts != (ordered := tuple(sorted(parts, key=lambda part: PLACES.index(part.place)))):
        raise UserError("fa_arch", f"'{chain}' is out of order", f"write '{'+'.join(map(str, ordered))}'")
    return parts


def names_of(parts: Sequence[Part]) -> str:
    """The chain without options, as architectures are compared: 'eraser+quantizer'."""
    return "+".join(part.name for part in parts)


def with_parameters(parts: Sequence[Part], given: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts, with the options that parameters with names of their own say; None is not given.

    Args:
        parts: As `parse` gives them.
        given: Name of a parameter -> value, of those in `PARAMETERS`.

    Raises:
        UserError: Blames the parameter: the chain lacks its part, or gives the option, too.
    """
    found = {part.name: part for part in parts}
    for parameter, (name, option) in PARAMETERS.items():
        if (value := given.get(parameter)) is None:
            continue
        if name not in found:
            problem = f"is given, but fa_arch = '{names_of(parts)}' has no part {name}"
            raise UserError(parameter, problem, f"remove it, or add {name}")
        part = found[name]
        if option in part.options:
            raise UserError(parameter, f"is given, and fa_arch has {part}", f"remove {parameter}")
        found[name] = replace(part, options={**part.options, option: value})
    return tuple(found.values())


def check(parts: Sequence[Part], *, fitted: Collection[str]) -> None:
    """Check the options of all closed forms, and that those to be `fitted` (names) have what they need.

    Raises:
        UserError: Blames the parameter or, where the option has none of its own, `fa_arch`.
    """
    for part in parts:
        if part.name not in TRAINED:
            METHODS[part.name].read(part.options, culprit=_culprit(part.name), complete=part.name in fitted)


def needs_of(parts: Sequence[Part]) -> frozenset[str]:
    """Fields of `FitData` that closed forms among the parts read besides features."""
    return frozenset(need for part in parts if part.name not in TRAINED for need in METHODS[part.name].data)


def draws(parts: Sequence[Part]) -> bool:
    """Whether a seed changes what closed forms among the parts are."""
    return any(part.name not in TRAINED and METHODS[part.name].seed == "draws" for part in parts)


def has_closed_form(parts: Sequence[Part]) -> bool:
    """Whether a part is fitted."""
    return any(part.name not in TRAINED for part in parts)


def trained_part(parts: Sequence[Part]) -> str | None:
    """The part that is trained by gradient; None where all are fitted."""
    return next((part.name for part in parts if part.name in TRAINED), None)


def to_string(architecture: Mapping[str, Any]) -> str:
    """The chain of a recorded architecture, without options; fixed affine maps go by the method that made them."""
    if architecture["arch"] == "chain":
        return "+".join(map(to_string, architecture["stages"])) or "identity"
    return architecture["method"] if architecture["arch"] == "affine" else architecture["arch"]


def trained_stage(anonymizer: Anonymizer) -> Anonymizer:
    """The stage of an anonymizer that training changes; itself where it is no chain."""
    stages = getattr(anonymizer, "stages", [anonymizer])
    return next((stage for stage in stages if stage.architecture["arch"] in TRAINED), anonymizer)


def freeze_before_trained(anonymizer: Anonymizer) -> Anonymizer:
    """Have training leave alone what comes before the trained stage."""
    for stage in getattr(anonymizer, "stages", ()):
        if stage.architecture["arch"] in TRAINED:
            break
        stage.requires_grad_(False)
    return anonymizer


def build_pipeline(
    parts: Sequence[Part], data: FitData, *, trained: Anonymizer | None = None, seed: int = 0
) -> Anonymizer:
    """The anonymizer of a chain, each part fitted to what the ones before it release.

    Args:
        parts: As `parse` gives them, with all options.
        data: Of training subjects, with what `needs_of` names.
        trained: The part to be trained, as it starts. A bottleneck of it starts at the principal components.
        seed: Of draws. Keys of noise are drawn at random: they are secrets, and parameters are not.

    Raises:
        UserError: An option is missing or out of range, or the data isn't enough for it.
    """
    stages: list[Anonymizer] = []
    for part in parts:
        if part.name in TRAINED:
            assert trained is not None, "a pipeline with a trained part is given one"
            stage = trained
            if isinstance(stage, EncoderAnonymizer) and stage.narrow is not None:
                start = pca(data.features, keep=stage.architecture["bottleneck"])
                factors = (start.mean, start.encode, start.decode)
                stage.start_bottleneck(*(torch.from_numpy(factor).float() for factor in factors))
        else:
            form = METHODS[part.name]
            options = form.read(part.options, culprit=_culprit(part.name))
            stage = form.fitted(data, options, seed=seed if form.seed == "draws" else None)
        stages.append(stage)
        if len(stages) < len(parts):
            data = data.after(stage)
    return stages[0] if len(stages) == 1 else Chain(data.features.shape[1], stages=stages)


def fitting_record(
    anonymizer: Anonymizer, data: FitData, *, parts: Sequence[Part], options: Mapping[str, Any]
) -> dict[str, Any]:
    """What a checkpoint says of an anonymizer: what it was fitted to, what it releases and guarantees.

    Args:
        anonymizer: As it was fitted, or is about to be trained.
        data: What it was fitted to.
        parts: Of the whole chain, with their options.
        options: Parameters beside `fa_arch` that say what it is; None is left out.
    """
    record: dict[str, Any] = {
        "method": to_string(anonymizer.architecture),
        "chain": "+".join(map(str, parts)),
        "options": {name: value for name, value in options.items() if value is not None},
        "clips": len(data.features),
        "videos": data.num_videos,
        "splavu_version": __version__,
        "guarantees": guarantees(anonymizer.architecture),
    }
    if data.attributes:
        record["attributes"] = list(data.attributes)
    before = data
    for stage in getattr(anonymizer, "stages", [anonymizer]):
        if isinstance(stage, Quantizer):
            used = stage.usage(torch.from_numpy(before.features))
            record["released"] = {
                "bits_at_most": used.budget,
                "bits_on_average": used.entropy,
                "distinct_vectors": used.distinct,
                "centroids_used": list(used.used),
            }
        before = before.after(stage)
    return record


def holds_closed_form(anonymizer: Anonymizer) -> bool:
    """Whether a stage was fitted in closed form."""
    return any(stage["arch"] not in TRAINED for stage in stages_of(anonymizer.architecture))


def _culprit(form: str) -> Callable[[str], str]:
    """Option of a closed form -> the parameter to blame for it."""
    own = {option: parameter for parameter, (name, option) in PARAMETERS.items() if name == form}
    return lambda option: own.get(option, "fa_arch")


def _read(chain: str) -> list[Part]:
    """Parts of an expression of names and calls joined by +."""
    try:
        node = ast.parse(chain.strip(), mode="eval").body
        nodes: list[ast.expr] = []
        while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            nodes.insert(0, node.right)
            node = node.left
        return [_part(one) for one in (node, *nodes)]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        remedy = "write for example 'eraser(rank=32)+quantizer(bits=8)'"
        raise UserError("fa_arch", f"'{chain}' isn't a chain of parts", remedy) from None


def _part(node: ast.expr) -> Part:
    if isinstance(node, ast.Name):
        return Part(node.id)
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise ValueError(ast.dump(node))
    options: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError(ast.dump(node))
        value = keyword.value
        options[keyword.arg] = value.id if isinstance(value, ast.Name) else ast.literal_eval(value)
    return Part(node.func.id, options)
