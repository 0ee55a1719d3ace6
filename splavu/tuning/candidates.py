"""What `tune` measures: chains of closed forms that a store's data allows, as `fa_arch` and `splavu fit` say them.

A closed form lists the options that are worth a try (`ClosedForm.tried`); one that is added to the registry is tried
too. What erases from something that it is fitted to (static clips, private labels) is also put before each quantizer.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence

from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.pipeline import Part, parse


def chains(data: FitData, methods: Sequence[str] | None = None) -> list[str]:
    """Chains whose data is there.

    Args:
        data: Of training subjects.
        methods: Names of closed forms to keep to; None takes all.
    """
    forms = [
        METHODS[name]
        for name in METHODS
        if (methods is None or name in methods) and all(getattr(data, need) is not None for need in METHODS[name].needs)
    ]
    single = [str(Part(form.name, options)) for form in forms for options in form.tried]
    first = [Part(form.name, form.tried[0]) for form in forms if form.place == "erase" and form.needs and form.tried]
    last = [Part(form.name, options) for form in forms for options in form.tried_last]
    return [*single, *(f"{one}+{other}" for one, other in itertools.product(first, last))]


def shown(chain: str) -> str:
    """A chain as a table shows it, on less room: quotes and spaces left out."""
    return chain.replace("'", "").replace(" ", "")


def fit_commands(
    chain: str, *, files: Mapping[str, Sequence[object]], flag_of: Mapping[str, str], out: str
) -> Iterator[str]:
    """The `splavu fit` commands that make a chain, to be pasted into a shell.

    Args:
        chain: Of closed forms.
        files: Flag, without its dashes -> the files given for it.
        flag_of: Field of `FitData` -> flag.
        out: Name of the last checkpoint, without its ending.
    """
    parts, before = parse(chain), ""
    for number, part in enumerate(parts, start=1):
        form, words = METHODS[part.name], ["splavu", "fit", part.name]
        for flag in ("raw", *(flag_of[need] for need in form.data)):
            # Private labels of a store name its subjects too, where no table of subjects is given.
            if flag == "subjects" and not files.get(flag):
                flag = "private"
            if given := files.get(flag):
                words += [f"--{flag}", *map(str, given)]
        for name, value in part.options.items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{name.replace('_', '-')}", text]
        target = f"{out}.pth" if number == len(parts) else f"{out}-{part.name}.pth"
        words += [*(["--after", before] if before else []), "--out", target]
        before = target
        yield shlex.join(words)
