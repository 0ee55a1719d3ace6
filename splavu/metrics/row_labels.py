"""What says to which cluster, group or video each row belongs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

RowLabels: TypeAlias = Sequence | np.ndarray
"""A name or number for each row."""
