"""Dataclasses that check themselves: types from the annotations, ranges from constraints declared once, at the field.

    @dataclass(frozen=True)
    class TrainingParams(Schema):
        num_epochs: Count = 100
        clip_norm: Positive | None = None
        width: Annotated[int, MultipleOf(16)] = 512

`build` makes one from a mapping (a parameter file, a section of YAML, a command line) and names everything unknown in
it; direct construction checks the same values. An int passes for a float, a list for a tuple, text for a Path, and a
mapping for a nested dataclass; nothing else is converted. Numbers must be finite unless the field is marked
`MAY_BE_INFINITE`.

Constraints are those of `annotated-types` (`Gt`, `Interval`, `MinLen`, ...; a `Predicate` is named by its docstring),
which pydantic reads too: the schemas of `tridet` and `mgfn` declare theirs without an import of `splavu`. pydantic
itself isn't used. Its strict mode refuses lists for tuples, text for paths and mappings for nested dataclasses, each of
which would need a wrapper; its errors would be translated to ours one kind at a time; and its import takes 100 ms of
processor time, `annotated_types` takes 20.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Interval, Le, Lt, MaxLen, MinLen, MultipleOf, Predicate

from splavu.errors import UserError, nearest

Built = TypeVar("Built")


MAY_BE_INFINITE = "may be infinite"
"""Marks such a number, `Annotated[float, "may be infinite"]`; a text, for schemas that don't import this module."""


@dataclass(frozen=True, eq=False)
class OneOf:
    """The value is one of the names in a registry; otherwise the nearest is offered."""

    known: Collection[str]


@dataclass(frozen=True, eq=False)
class Convert:
    """The value is replaced by what the function gives for it, such as the present name for a former one.

    The function raises UserError where it has no value.
    """

    function: Callable[[Any], Any]


def unique(values: Collection[Any]) -> bool:
    """free of duplicates"""
    return len(set(values)) == len(values)


def folder_name(text: str) -> bool:
    """a folder name, each part of at most 200 bytes"""
    return bool(text.strip()) and text.isprintable() and all(len(part.encode()) <= 200 for part in text.split("/"))


LARGEST = 2**31 - 1
"""What every library below takes as a number of things."""
Count = Annotated[int, Ge(1), Le(LARGEST)]
NonNegativeInt = Annotated[int, Ge(0), Le(LARGEST)]
Few = Annotated[int, Interval(ge=1, le=1024)]
"""Of what is built or started one by one: layers, heads, processes, seeds."""
FewOrNone = Annotated[int, Interval(ge=0, le=1024)]
Draws = Annotated[int, Interval(ge=1, le=100_000)]
"""Resamples of a statistic, whose memory grows with them."""
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Probability = Annotated[float, Interval(ge=0, le=1)]
Share = Annotated[float, Interval(ge=0, lt=1)]
"""A part of a whole that leaves something over."""
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
Key = Annotated[int, Interval(ge=0, lt=2**63)]
"""A secret seed."""
OF_OPTIONS = (float, Count, NonNegativeInt, Few, FewOrNone, Positive, NonNegative, Probability, Share, Seed, Key)
"""What `type` of an option of the command line may be (`splavu.runtime.cli.ArgumentParser`)."""
Seeds = Annotated[tuple[Seed, ...], MinLen(1), Predicate(unique)]
Clips = Annotated[int, Interval(ge=1, le=1000)]
"""Evenly spaced clips of a video."""
RunName = Annotated[str, Predicate(folder_name)]
"""Of a run folder; may hold '/' to group runs. File systems allow 255 bytes, and suffixes come on top."""


@dataclass(frozen=True)
class Schema:
    """Base of dataclasses whose construction checks types and ranges; `__post_init__` of a subclass calls it first."""

    def __post_init__(self) -> None:
        check(self)


def conformed(kind: Any, value: Any, name: str) -> Any:
    """`value` as the annotation `kind` wants it, for options that are no field of a dataclass.

    Raises:
        UserError: Blames `name`: the type is another, or it is out of range.
    """
    try:
        return _conform(kind, value, name)
    except _Fault as fault:
        raise fault.user_error(None) from None


def build(schema: type[Built], values: Mapping[str, Any], *, source: object) -> Built:
    """The dataclass `schema` with these values.

    Args:
        schema: May hold dataclasses, which are built from mappings.
        values: Name -> value, as a file or a command line gave them.
        source: Named in errors.

    Raises:
        UserError: Blames `source`: names are unknown (all of them are listed, with the nearest known ones) or missing,
            or a value has the wrong type. Blames the parameter: its value is out of range.
    """
    if unknown := list(_unknown(schema, values)):
        if len(unknown) == 1:
            raise UserError(source, f"unknown parameter '{unknown[0][0]}'", unknown[0][1])
        listed = ", ".join(f"'{name}' ({remedy})" for name, remedy in unknown)
        raise UserError(source, f"unknown parameters {listed}")
    try:
        return _conform(schema, values, "")
    except _Fault as fault:
        raise fault.user_error(source) from None


def check(instance: Any) -> None:
    """Check the fields of a dataclass instance, and convert as `build` does, in place.

    Raises:
        UserError: Names the field whose value has the wrong type or is out of range.
    """
    hints = type_hints(type(instance))
    for field in dataclasses.fields(instance):
        try:
            value = _conform(hints[field.name], getattr(instance, field.name), field.name)
        except _Fault as fault:
            raise fault.user_error(None) from None
        object.__setattr__(instance, field.name, value)


@functools.cache
def type_hints(schema: type) -> dict[str, Any]:
    """Field -> its annotation, with constraints."""
    return typing.get_type_hints(schema, include_extras=True)


class _Fault(Exception):
    """A value that a field doesn't take."""

    def __init__(self, name: str, value: object, wanted: str, remedy: str = "", *, of_type: bool) -> None:
        self.name, self.value, self.wanted, self.remedy, self.of_type = name, value, wanted, remedy, of_type

    def user_error(self, source: object | None) -> UserError:
        value = reprlib.repr(self.value)
        if self.of_type and source is not None:
            return UserError(source, f"parameter '{self.name}' is {value}, expected {self.wanted}", self.remedy)
        culprit = self.name.partition("[")[0]
        where = "" if culprit == self.name else f"{self.name} "
        is_flag = source is None or str(source).startswith("-")
        remedy = self.remedy or ("" if is_flag else f"given in {source} or by a flag")
        verb = "expected" if self.of_type else "must be"
        return UserError(culprit, f"{where}is {value}, {verb} {self.wanted}", remedy)


def _unknown(schema: type, values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and remedy of every name in `values` that `schema` doesn't have."""
    hints = {field.name: type_hints(schema)[field.name] for field in dataclasses.fields(schema) if field.init}
    for name, value in values.items():
        if name not in hints:
            yield f"{prefix}{name}", nearest(str(name), hints)
        elif dataclasses.is_dataclass(hints[name]) and isinstance(value, Mapping):
            yield from _unknown(hints[name], value, f"{prefix}{name}.")


def _conform(hint: Any, value: Any, name: str, *, finite: bool = True) -> Any:
    """`value` as an annotation wants it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _conform(arguments[0], value, name, finite=finite and MAY_BE_INFINITE not in arguments[1:])
        for rule in arguments[1:]:
            if isinstance(rule, Convert):
                value = rule.function(value)
            elif broken := _broken(rule, value):
                raise _Fault(name, value, *broken, of_type=False)
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _conform(option, value, name)
            except _Fault as fault:
                if not fault.of_type:
                    raise
    elif origin is Literal:
        # By type too: True == 1.
        if any(type(value) is type(choice) and value == choice for choice in arguments):
            return value
    elif origin is tuple or hint is tuple:
        if isinstance(value, (list, tuple)):
            inner = arguments or (Any, ...)
            if inner[-1] is Ellipsis:
                inner = inner[:1] * len(value)
            if len(inner) == len(value):
                items = zip(inner, value, strict=True)
                return tuple(_conform(kind, item, f"{name}[{i}]") for i, (kind, item) in enumerate(items))
    elif origin is dict and isinstance(value, Mapping):
        key, inner = arguments
        return {_conform(key, k, f"{name}[{k}]"): _conform(inner, item, f"{name}[{k}]") for k, item in value.items()}
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return _built(hint, value, f"{name}." if name else "")
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:  # an int of over 300 digits
                number = math.inf
            if finite and not math.isfinite(number):
                raise _Fault(name, value, "a finite number", of_type=False)
            return number
    elif hint is Path:
        if isinstance(value, (str, Path)):
            return Path(value)
    elif hint is Any or (isinstance(value, origin or hint) and isinstance(value, bool) == (hint is bool)):
        return value
    raise _Fault(name, value, _described(hint), _nearest_choice(hint, value), of_type=True)


def _built(schema: type, values: Mapping[str, Any], prefix: str) -> Any:
    hints, given = type_hints(schema), {}
    for field in dataclasses.fields(schema):
        if field.name in values:
            given[field.name] = _conform(hints[field.name], values[field.name], prefix + field.name)
        elif field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _Missing(prefix + field.name)
    return schema(**given)


class _Missing(_Fault):
    def __init__(self, name: str) -> None:
        super().__init__(name, None, "a value", of_type=False)

    def user_error(self, source: object | None) -> UserError:
        return UserError(source, f"parameter '{self.name}' is missing", f"add a line such as {self.name} = ...")


def _broken(rule: Any, value: Any) -> tuple[str, str] | None:
    """What a value must be and a remedy, if it breaks the rule."""
    remedy = ""
    match rule:
        case Interval():
            low, high = (b if a is None else a for a, b in ((rule.ge, rule.gt), (rule.le, rule.lt)))
            brackets = "[" if rule.gt is None else "(", "]" if rule.lt is None else ")"
            holds = all(_broken(part, value) is None for part in rule)
            wanted = f"{low}" if low == high else f"in {brackets[0]}{low}, {high}{brackets[1]}"
        case Gt(bound):
            holds, wanted = value > bound, f"more than {bound}"
        case Ge(bound):
            holds, wanted = value >= bound, f"at least {bound}"
        case Lt(bound):
            holds, wanted = value < bound, f"less than {bound}"
        case Le(bound):
            holds, wanted = value <= bound, f"at most {bound}"
        case MultipleOf(divisor):
            holds, wanted = value % divisor == 0, f"a multiple of {divisor}"
        case MinLen(1):
            holds, wanted = len(value) > 0, "not empty"
        case MinLen(length):
            holds, wanted = len(value) >= length, f"at least {length} long"
        case MaxLen(length):
            holds, wanted = len(value) <= length, f"at most {length} long"
        case OneOf(known):
            holds, wanted, remedy = value in known, "a known name", nearest(value, known)
        case Predicate(function):
            holds, wanted = function(value), function.__doc__ or function.__name__
        case _:
            return None
    return None if holds else (wanted, remedy)


NAMES = {int: "an integer", float: "a number", bool: "True or False", str: "text", Path: "a path", type(None): "None"}


def _described(hint: Any) -> str:
    """What an annotation wants, in words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _described(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, arguments))
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{count}, each entry {_described(arguments[0])}"
    if hint is tuple:
        return "a list"
    if dataclasses.is_dataclass(hint) or origin is dict or hint is dict:
        return "a mapping"
    return NAMES.get(hint) or getattr(hint, "__name__", str(hint))


def _nearest_choice(hint: Any, value: Any) -> str:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    known = [
        choice
        for option in options
        if typing.get_origin(option) is Literal
        for choice in typing.get_args(option)
        if isinstance(choice, str)
    ]
    if not known or not isinstance(value, str):
        return ""
    remedy = nearest(value, known)
    return remedy if remedy.startswith("did you mean") else ""  # the description has listed them all
