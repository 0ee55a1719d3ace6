"""Command-line options from a dataclass: each is written once, as a field with its default, its type and its help.

    batch_size: Count = option(32, "clips that the encoder takes at once")

A field without help has no option. Types, choices and counts of words come from the annotation; what a value may be is
checked when the dataclass is built, and by the parser where it is asked to.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from typing import Annotated, Any, Literal

from splavu.runtime.cli import within
from splavu.runtime.schema import OF_OPTIONS, OneOf, type_hints


def option(default: Any, help: str, *, flag: str | None = None, metavar: str | None = None) -> Any:
    """A field with its default and its text in --help; `flag` where it isn't the field's name with dashes."""
    return dataclasses.field(default=default, metadata={"help": help, "flag": flag, "metavar": metavar})


def add_options(
    parser: argparse._ActionsContainer,
    schema: type,
    *,
    with_defaults: bool = False,
    with_underscores: bool = False,
    with_ranges: bool = False,
) -> None:
    """Add an option to `parser` for every field of `schema` that has a help text.

    Args:
        parser: Parser, or group of one.
        schema: Dataclass.
        with_defaults: An option that isn't given has the field's default; otherwise it is absent from the namespace.
        with_underscores: `--batch_size` is accepted beside `--batch-size`.
        with_ranges: The parser refuses numbers out of range; otherwise that is left to the dataclass.
    """
    for field in dataclasses.fields(schema):
        if "help" not in field.metadata:
            continue
        flag = field.metadata.get("flag") or "--" + field.name.replace("_", "-")
        flags = list(dict.fromkeys([flag, f"--{field.name}"])) if with_underscores else [flag]
        settings: dict[str, Any] = _settings(type_hints(schema)[field.name], with_ranges)
        if settings.get("action") is None and field.metadata.get("metavar"):
            settings["metavar"] = field.metadata["metavar"]
        settings["default"] = field.default if with_defaults else argparse.SUPPRESS
        parser.add_argument(*flags, dest=field.name, help=field.metadata["help"], **settings)


def given_options(args: argparse.Namespace, schema: type) -> dict[str, Any]:
    """The fields of `schema` that the command line gave."""
    return {field.name: getattr(args, field.name) for field in dataclasses.fields(schema) if hasattr(args, field.name)}


def _settings(hint: Any, with_ranges: bool) -> dict[str, Any]:
    """What argparse is to know of an annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if with_ranges and hint in OF_OPTIONS and hint is not float:
        return {"type": within(hint)}
    if origin is Annotated:
        choices = [tuple(rule.known) for rule in arguments[1:] if isinstance(rule, OneOf)]
        return _settings(arguments[0], with_ranges) | ({"choices": choices[0]} if choices else {})
    if origin in (typing.Union, types.UnionType):
        return _settings(next(option for option in arguments if option is not type(None)), with_ranges)
    if origin is Literal:
        return {"type": type(arguments[0]), "choices": arguments}
    if origin is tuple:
        return {"nargs": len(arguments), **_settings(arguments[0], with_ranges)}
    return {"action": "store_true"} if hint is bool else {"type": hint}
