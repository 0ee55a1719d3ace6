"""Reads a configuration: a YAML file over the published defaults, typed and checked before anything is built.

Files of the public TriDet load as they are; a key that doesn't exist is an error here, not a silent default. The schema
itself is `tridet.schema`, which stands alone; this module joins it to the parameters of the rest of the project.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from splavu.errors import UserError
from splavu.runtime.params import parse_yaml, read_yaml
from splavu.runtime.schema import build
from tridet.errors import InputError
from tridet.schema import (
    Config,
    DatasetConfig,
    EngineConfig,
    LoaderConfig,
    ModelConfig,
    OptConfig,
    TestConfig,
    TrainConfig,
    to_dict,
)

__all__ = [
    "Config",
    "DatasetConfig",
    "EngineConfig",
    "LoaderConfig",
    "ModelConfig",
    "OptConfig",
    "TestConfig",
    "TrainConfig",
    "from_dict",
    "load",
    "parse_yaml",
    "to_dict",
]


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration in a YAML file over the defaults; a key `base` names another file to lie below this one.

    Args:
        path: YAML file.
        overrides: Nested like the file, laid over it.

    Raises:
        InputError: No such file, no YAML mapping, an unknown key, a value of the wrong type or out of range.
    """
    return from_dict(_laid_over(_read(Path(path)), overrides or {}), source=path)


def from_dict(content: Mapping[str, Any], *, source: object = "config") -> Config:
    """The configuration in a nested dictionary, which may be the public release's merged one.

    Merged dictionaries repeat facts below `model` (input_dim, num_classes, max_seq_len, train_cfg, test_cfg); they fill
    what is missing elsewhere and must otherwise agree.

    Raises:
        InputError: As `load`; `source` is named.
    """
    content = {key: dict(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    model = content.get("model")
    if isinstance(model, dict):
        if "boundary_kernel_size" in model:
            _take(model, "boudary_kernel_size", model.pop("boundary_kernel_size"), f"{source}: model.")
        for name in ("input_dim", "num_classes", "max_seq_len"):
            if name in model:
                _take(content.setdefault("dataset", {}), name, model.pop(name), f"{source}: dataset.")
        for name in ("train_cfg", "test_cfg"):
            if name in model:
                _take(content, name, model.pop(name), f"{source}: ")
    with _as_input_errors():
        return build(Config, content, source=source)


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The mapping in a YAML file, laid over its base's, if it names one."""
    if not path.is_file():
        problem = "is no regular file" if path.exists() else "doesn't exist"
        raise InputError(path, problem, "give a YAML file such as tridet/thumos_videoMAE.yaml")
    if path.resolve() in above:
        raise InputError(path, "is its own base", "remove the key 'base' from one of the files")
    with _as_input_errors():
        content = read_yaml(path)
    base = content.pop("base", None)
    return content if base is None else _laid_over(_read(path.parent / str(base), (*above, path.resolve())), content)


def _take(section: dict[str, Any], name: str, value: Any, where: str) -> None:
    if section.setdefault(name, value) != value:
        raise InputError(f"{where}{name}", f"is given twice, as {section[name]!r} and {value!r}", "give it once")


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _laid_over(merged[key], value) if nested else value
    return merged


@contextlib.contextmanager
def _as_input_errors() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise InputError(error.culprit, error.problem, error.remedy) from error
