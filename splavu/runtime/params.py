"""Parameter files: assignments in Python, or TOML or YAML, become one frozen, checked dataclass.

A Python file is run, so read it before you use one from a stranger; names that start with an underscore are private to
it. TOML and YAML run nothing. Names, types and ranges are checked by `splavu.runtime.schema`.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import runpy
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from splavu.errors import UserError, one_line
from splavu.runtime.schema import build

__all__ = ["as_dict", "build", "derived_value", "load", "parse_override", "parse_yaml", "read_file", "read_yaml"]

Built = TypeVar("Built")


def load(
    path: str | Path, schema: type[Built], overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> Built:
    """Read `path`, replace what the command line says and build `schema`.

    Args:
        path: Python, TOML (.toml) or YAML (.yaml, .yml).
        schema: Dataclass.
        overrides: "name=value" each, value a Python literal or plain text.
        given: Name -> value of further flags, which replace both.

    Raises:
        UserError: The file is missing or can't be read; otherwise as `build`.
    """
    values = {**read_file(path), **dict(parse_override(text) for text in overrides), **(given or {})}
    return build(schema, values, source=path)


def read_file(path: str | Path) -> dict[str, Any]:
    """The assignments of the parameter file `path`: of Python the public ones, of TOML and YAML the top level.

    Raises:
        UserError: The file is missing or can't be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such parameter file", "see params/ for examples")
    kind = path.suffix.lower()
    if kind in (".yaml", ".yml"):
        return read_yaml(path)
    if kind == ".toml":
        return _read_toml(path)
    if kind not in (".py", ""):
        raise UserError(path, "is no .py, .toml or .yaml", "name it for what it is: only Python is run")
    try:
        module = runpy.run_path(os.fspath(path))
    except (Exception, SystemExit) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else path
        raise UserError(
            where, f"does not run ({type(error).__name__}: {one_line(error)})", "use plain assignments"
        ) from error
    return {
        name: value
        for name, value in module.items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(path, f"is not valid TOML ({error})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file gives an empty one.

    Raises:
        UserError: It can't be read, or holds something else.
    """
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(path, f"is not valid YAML ({one_line(error)})") from None
    if content is not None and not isinstance(content, dict):
        raise UserError(path, "holds no mapping", "write lines such as num_epochs: 10")
    return content or {}


def parse_yaml(text: str) -> Any:
    """The value of YAML text. '1e-4' is a number, as in YAML 1.2, and a key given twice is an error.

    Raises:
        yaml.YAMLError: It is no YAML.
        ValueError: A number or a date in it is impossible.
    """
    return yaml.load(text, Loader=_YamlLoader)  # as safe_load: the loader is a SafeLoader


class _YamlLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := {key for key in written if written.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{min(twice)}'", node.start_mark)
        return super().construct_mapping(node, deep)


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def parse_override(text: str) -> tuple[str, Any]:
    """`"lr=1e-3"` -> `("lr", 0.001)`; what isn't a Python literal stays text."""
    name, found, value = text.partition("=")
    if not found or not name.strip().isidentifier():
        raise UserError("--set", f"'{text}' is not NAME=VALUE", "write for example --set num_epochs=10")
    try:
        return name.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # also of thousands of brackets
        return name.strip(), value.strip()


def derived_value(name: str, given: Any, derived: Any, *, because: str) -> Any:
    """The value of a parameter that follows from another one; None means not given.

    Raises:
        UserError: It was given and contradicts the derived value; both are quoted.
    """
    if given is not None and given != derived:
        raise UserError(name, f"{given} was given, but {because} means {derived}", f"remove {name}")
    return derived


def as_dict(params: Any) -> dict[str, Any]:
    """The parameters as plain JSON values, for a run folder or a checkpoint."""
    return json.loads(json.dumps(dataclasses.asdict(params), default=str))
