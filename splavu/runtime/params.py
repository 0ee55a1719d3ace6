"""Parameters: a flat Python file of assignments becomes one frozen, checked dataclass.

The file is run, so read it before you use a stranger's. Names that start with an underscore are private to the file.
Type, spelling and completeness are checked here; what a value may be is checked by the schema's `__post_init__`.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import runpy
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from splavu.errors import UserError, nearest

Schema = TypeVar("Schema")


def load(path: str | Path, schema: type[Schema], overrides: Sequence[str] = ()) -> Schema:
    """Read `path`, apply `overrides` ("name=value", value a Python literal or plain text) and build `schema`.

    Raises:
        UserError: The file is missing or doesn't run; a name is unknown (the nearest is offered) or missing; a value
            has the wrong type.
    """
    values = {**read_file(path), **dict(parse_override(text) for text in overrides)}
    return build(schema, values, source=path)


def read_file(path: str | Path) -> dict[str, Any]:
    """The public assignments of the parameter file `path`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such parameter file", "see params/ for examples")
    try:
        module = runpy.run_path(os.fspath(path))
    except Exception as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else path
        raise UserError(where, f"does not run ({type(error).__name__}: {error})", "use plain assignments") from error
    return {
        name: value
        for name, value in module.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


def parse_override(text: str) -> tuple[str, Any]:
    """`"lr=1e-3"` -> `("lr", 0.001)`; what is no Python literal stays text."""
    name, found, value = text.partition("=")
    if not found or not name.strip().isidentifier():
        raise UserError("--set", f"'{text}' is not NAME=VALUE", "write for example --set num_epochs=10")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return name.strip(), value.strip()


def build(schema: type[Schema], values: Mapping[str, Any], *, source: str | Path) -> Schema:
    """Check `values` against the dataclass `schema` and build it; `source` is named in errors."""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    hints = typing.get_type_hints(schema)
    for name in values:
        if name not in fields:
            raise UserError(source, f"unknown parameter '{name}'", nearest(name, fields))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(source, f"parameter '{name}' is missing", f"add a line such as {name} = ...")
    return schema(**{name: _typed(name, value, hints[name], source) for name, value in values.items()})


def agreed(name: str, given: Any, looked_up: Any, *, because: str) -> Any:
    """The value of a parameter that follows from another one; None means not given.

    Raises:
        UserError: It was given and contradicts what was looked up; both values are quoted.
    """
    if given is not None and given != looked_up:
        raise UserError(name, f"{given} was given, but {because} means {looked_up}", f"remove {name} or mend the other")
    return looked_up


def as_dict(params: Any) -> dict[str, Any]:
    """The parameters as plain JSON values, for a run folder or a checkpoint."""
    return json.loads(json.dumps(dataclasses.asdict(params), default=str))


def _typed(name: str, value: Any, hint: Any, source: str | Path) -> Any:
    """`value` as `hint` wants it: int passes for float, list for tuple, text for Path; the rest must match."""
    for option in _options(hint):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is typing.Literal:
            if value in args:
                return value
        elif origin is tuple or option is tuple:
            if isinstance(value, (list, tuple)):
                inner = args[0] if args else Any
                return tuple(_typed(f"{name}[{i}]", item, inner, source) for i, item in enumerate(value))
        elif option is Any:
            return value
        elif option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        elif option is Path and isinstance(value, (str, Path)):
            return Path(value)
        elif isinstance(value, option) and isinstance(value, bool) == (option is bool):
            return value
    wanted = " or ".join(_spelled(option) for option in _options(hint))
    remedy = ""
    if isinstance(value, str) and (
        known := [a for o in _options(hint) for a in typing.get_args(o) if isinstance(a, str)]
    ):
        remedy = nearest(value, known)
    raise UserError(source, f"parameter '{name}' is {value!r}, expected {wanted}", remedy)


def _options(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _spelled(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(repr(arg) for arg in typing.get_args(option))
    if option is type(None):
        return "None"
    return getattr(option, "__name__", str(option)) if not typing.get_args(option) else str(option)
