"""What names of videos say by themselves: the naming rules of data sets, and what keys released as they are reveal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from splavu.data.keys import file_key
from splavu.data.splits import casia_name, ntu_name
from splavu.errors import UserError


def _is(parse: Callable[[str], object]) -> Callable[[str], bool]:
    def follows(name: str) -> bool:
        try:
            parse(name)
        except UserError:
            return False
        return True

    return follows


def _like(pattern: str) -> Callable[[str], bool]:
    return lambda name: re.match(pattern, name) is not None


FORMS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "NTU RGB+D": (_is(ntu_name), "subject, camera and action"),
    "Casia-B": (_is(casia_name), "subject, walk and view"),
    "Toyota Smarthome": (_like(r"[A-Z][A-Za-z.]*_p\d+_r\d+_v\d+_c\d+"), "subject, camera and action"),
    "UCF101": (_like(r"v_[A-Za-z]+_g\d+_c\d+"), "action and film"),
    "HMDB51": (_like(r".+_[fhlu]_(cm|nm)_np\d_(fr|ba|le|ri)_(goo|med|bad)_\d+"), "film, action and people seen"),
    "THUMOS14": (_like(r"video_(validation|test)_\d{7}$"), "which video of the public set it is"),
    "UCF-Crime": (_like(r"(Normal_Videos_?|[A-Z][A-Za-z]+)\d+_x264"), "whether it is abnormal"),
    "XD-Violence": (_like(r".+_label_[ABG]\d?(-[ABG0]\d?)*"), "film and whether it is abnormal"),
}
"""Data set -> how its videos are named, and what such a name says."""

SHARE = 0.9
"""Of the keys that have a form, for all of them to be taken for a data set's."""


def what_keys_reveal(keys: Iterable[str]) -> str:
    """One line on what keys say that are released as they are: of which data set's form, and who may share a name.

    A part of a key that some keys share, at most a tenth of them, is what the name of a subject, a family or a day
    would look like. It is a hint, no finding: a name can say more.
    """
    names = [file_key(key) for key in keys]
    for title, (has_form, says) in FORMS.items():
        if sum(map(has_form, names)) >= SHARE * len(names):
            return f"{len(names)} names of the form of {title}, which say {says}"
    parts = [set(re.findall(r"[^\W_]+", name)) for name in names]
    count = Counter(part for of_name in parts for part in of_name)
    shared = {part for part, number in count.items() if 2 <= number <= max(2, len(names) // 10)}
    sharing = sum(not shared.isdisjoint(of_name) for of_name in parts)
    if not sharing:
        return f"{len(names)} names, no part of which few of them share"
    part = max(sorted(shared), key=count.__getitem__)
    return (
        f"{sharing} of {len(names)} names share a part with few others, as the videos of a subject would "
        f"('{part}' is in {count[part]})"
    )
