"""What names of videos say by themselves: the naming rules of data sets, and what keys released as they are reveal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

PATTERNS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "NTU RGB+D": (re.compile(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}"), "subject, camera and action"),
    "Casia-B": (re.compile(r"\d{3}-(nm|bg|cl)-\d{2}-\d{3}"), "subject, walk and view"),
    "Toyota Smarthome": (re.compile(r"[A-Z][A-Za-z.]*_p\d+_r\d+_v\d+_c\d+"), "subject, camera and action"),
    "UCF101": (re.compile(r"v_[A-Za-z]+_g\d+_c\d+"), "action and film"),
    "HMDB51": (re.compile(r".+_[fhlu]_(cm|nm)_np\d_(fr|ba|le|ri)_(goo|med|bad)_\d+"), "film, action and people seen"),
    "UCF-Crime": (re.compile(r"(Normal_Videos_?|[A-Z][A-Za-z]+)\d+_x264"), "whether it is abnormal"),
    "XD-Violence": (re.compile(r".+_label_[ABG]\d?(-[ABG0]\d?)*"), "film and whether it is abnormal"),
}
"""Data set -> how its videos are named, and what such a name says."""

SHARE = 0.9
"""Of the keys that follow a pattern, for all of them to be taken for a data set's."""


def what_keys_reveal(keys: Iterable[str]) -> str:
    """One line on what keys say that are released as they are: of which data set's form, and who may share a name.

    A part of a key (between other characters than letters and digits) that some keys share, at most a tenth of them,
    is what the name of a subject, a family or a day would look like. It is a hint, no finding: a name can say more.
    """
    names = [re.sub(r"\.\w{2,4}$", "", key.rpartition("/")[2]) for key in keys]
    for title, (pattern, says) in PATTERNS.items():
        if sum(bool(pattern.match(name)) for name in names) >= SHARE * len(names):
            return f"{len(names)} names of the form of {title}, which say {says}"
    count = Counter(part for name in names for part in set(re.findall(r"[^\W_]*\d[^\W_]*|[^\W\d_]+", name)))
    shared = {part for part, number in count.items() if 2 <= number <= max(2, len(names) // 10)}
    sharing = [name for name in names if shared & set(re.findall(r"[^\W_]*\d[^\W_]*|[^\W\d_]+", name))]
    if not sharing:
        return f"{len(names)} names, of which no few share a part"
    part = max(sorted(shared), key=count.__getitem__)
    return (
        f"{len(sharing)} of {len(names)} names share a part with few others, as the videos of a subject would "
        f"('{part}' is in {count[part]})"
    )
