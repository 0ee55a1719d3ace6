"""Progress bars, shown where the program reports its progress: where messages of level INFO are shown.

`cli.start` sets that level, and --quiet raises it. A program that uses the library sees bars if it turns INFO on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from splavu.errors import printable


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A bar of tqdm, which takes `options`; disabled where INFO is not shown."""
    if not logging.getLogger().isEnabledFor(logging.INFO):
        options["disable"] = True
    if options.get("desc"):
        options["desc"] = printable(options["desc"])
    return tqdm(iterable, **options)
