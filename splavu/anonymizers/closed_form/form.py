"""A closed form as one row: its name, the data that it needs, its options and how it is fitted.

    @dataclass(frozen=True)
    class KeepOptions(Schema):
        keep: Annotated[Count | None, About("directions to keep", required=True)] = None

    PCA = ClosedForm("pca", "keeps the directions of largest variance", fit=fit_pca, options=KeepOptions)

The row is all that `splavu fit`, `fa_arch`, sweep and compare read. Types and ranges are declared at the options'
fields (`splavu.runtime.schema`) and checked in the same way wherever an option was given.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.errors import UserError, nearest
from splavu.runtime.schema import Schema, build, type_hints

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.base import Anonymizer

Need = Literal["static", "classes", "private", "subjects"]
Place = Literal["erase", "quantize", "noise"]


@dataclass(frozen=True)
class About:
    """What an option is, in the annotation of its field."""

    help: str
    """One line for the command line."""
    required: bool = False
    """Must be given."""
    parameter: str = ""
    """The historic name in parameter files, if it has one."""


@dataclass(frozen=True)
class NoOptions(Schema):
    """Of a closed form that leaves nothing to choose."""


@dataclass(frozen=True)
class Option:
    """An option as its field declares it."""

    name: str
    default: Any
    kind: Any
    """Its type, with ranges."""
    about: About

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that it takes, without ranges and None."""
        kinds = typing.get_args(self.kind) if type(None) in typing.get_args(self.kind) else (self.kind,)
        return tuple(typing.get_origin(kind) or kind for kind in map(_without_range, kinds) if kind is not type(None))

    @property
    def is_flag(self) -> bool:
        return self.kinds == (bool,)

    def from_plain(self, value: Any) -> Any:
        """`value` as it was given, a lone number as a list of one where a list is wanted."""
        return (value,) if tuple in self.kinds and not isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ClosedForm:
    """One closed form."""

    name: str
    """An identifier, as on the command line and in `fa_arch`."""
    help: str
    """One line: what it does."""
    fit: Callable[[FitData, Any, int | None], Anonymizer]
    """(data, options, seed) -> the anonymizer. The seed is None where the form draws nothing, or its own key."""
    options: type = NoOptions
    """A frozen dataclass (a `Schema`) whose fields are annotated with what they are `About`."""
    needs: tuple[Need, ...] = ()
    """Fields of `FitData` that must be there."""
    uses: tuple[Need, ...] = ()
    """Fields of `FitData` that change it if they are there."""
    without_classes: Mapping[str, Any] = field(default_factory=dict)
    """The options by which it does without action labels that are there."""
    one_of: tuple[str, ...] = ()
    """Options of which exactly one must be given."""
    place: Place = "erase"
    """Where it may stand in a chain: 'erase' before what is trained, 'quantize' and 'noise' after it."""
    seed: Literal["none", "draws", "secret"] = "none"
    """What a seed is to it: nothing; of its draws; a key that must stay secret, at random unless it is given."""
    network: type[Anonymizer] | None = None
    """The class of its anonymizers, where it is none of `splavu.anonymizers.ANONYMIZERS`; `arch` is then the name."""
    tried: tuple[Mapping[str, Any], ...] = ()
    """Options that `splavu tune` measures it with; with the first of them it also stands before quantizers."""
    tried_last: tuple[Mapping[str, Any], ...] = ()
    """Of a quantizer: options that it is measured with behind each part that erases."""
    describe: Callable[[Any, FitData], str] | None = None
    """In one phrase what was fitted; None says its name."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a closed form is called by an identifier, not {self.name!r}")

    @property
    def data(self) -> tuple[Need, ...]:
        """Fields of `FitData` besides the features that it reads."""
        return (*self.needs, *self.uses)

    @cached_property
    def declared(self) -> Mapping[str, Option]:
        """Its options by name."""
        hints = type_hints(self.options)
        found = {}
        for one in dataclasses.fields(self.options):
            kind, *rules = typing.get_args(hints[one.name])
            found[one.name] = Option(one.name, one.default, kind, next(r for r in rules if isinstance(r, About)))
        return found

    def read(
        self, given: Mapping[str, Any], *, culprit: Callable[[str], str] = str, complete: bool = True
    ) -> Any:  # an instance of `options`
        """The options, checked.

        Args:
            given: Name -> value, those that were given.
            culprit: Option -> what to blame for it: a flag, a parameter.
            complete: Whether one that is required must be among them.

        Raises:
            UserError: One is unknown, missing, of another type or out of range, or two exclude each other.
        """
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in self.declared:
                known = nearest(name, self.declared) if self.declared else "it has no options"
                raise UserError(culprit(name), f"'{name}' is not an option of {self.name}", known)
            plain = self.declared[name].from_plain(value)
            try:
                values[name] = getattr(build(self.options, {name: plain}, source=culprit(name)), name)
            except UserError as error:
                said = "" if name in culprit(name) else f"'{name}' of {self.name} "
                raise UserError(culprit(name), said + error.problem, error.remedy) from None
        if complete:
            self._check_complete(values, culprit)
        return self.options(**values)

    def _check_complete(self, values: Mapping[str, Any], culprit: Callable[[str], str]) -> None:
        there = {name for name, value in values.items() if value is not None}
        for one in self.declared.values():
            if one.about.required and one.name not in there:
                raise UserError(culprit(one.name), f"is missing: {self.name} needs '{one.name}'", one.about.help)
        if self.one_of and len(there.intersection(self.one_of)) != 1:
            both = "both are given" if there.issuperset(self.one_of) else "is missing"
            problem = f"{both}: {self.name} takes exactly one of {', '.join(self.one_of)}"
            raise UserError(culprit(self.one_of[0]), problem, self.declared[self.one_of[0]].about.help)

    def fitted(self, data: FitData, options: Any, *, seed: int | None = None) -> Anonymizer:
        """The anonymizer, fitted to the rows of `data` that have what the form needs.

        Raises:
            UserError: The data lacks something, isn't enough for the options, or has no spread that float32 holds.
        """
        for need in self.needs:
            data.needed(need, by=self.name)
        if "private" in self.needs:
            data = data.with_known_private()
        data.refuse_degenerate()
        return self.fit(data, options, seed)

    def described(self, made: Anonymizer, data: FitData) -> str:
        """One phrase on what was fitted."""
        return self.name if self.describe is None else self.describe(made, data)


def _without_range(hint: Any) -> Any:
    return typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
