"""All closed forms by name: the one table that `fit`, `fa_arch`, sweep and compare read.

To add a closed form, write a module with its row and list the row here. Another installed package adds one by an entry
point of the group `splavu.anonymizers` that leads to a `ClosedForm` (`splavu.runtime.registry`).
"""

from __future__ import annotations

from splavu.anonymizers.closed_form.codes import QUANTIZER
from splavu.anonymizers.closed_form.erasers import ERASER, LEACE, ORTHOGONAL
from splavu.anonymizers.closed_form.form import ClosedForm
from splavu.anonymizers.closed_form.inlp import INLP
from splavu.anonymizers.closed_form.noise import NOISE
from splavu.anonymizers.closed_form.projection import PCA, RANDOM
from splavu.runtime.registry import Registry

BUILT_IN = (ERASER, LEACE, ORTHOGONAL, INLP, PCA, RANDOM, QUANTIZER, NOISE)
METHODS = Registry({row.name: row for row in BUILT_IN}, group="splavu.anonymizers", kind=ClosedForm)

PARAMETERS = {
    option.about.parameter: (row.name, option.name)
    for row in BUILT_IN
    for option in row.declared.values()
    if option.about.parameter
}
"""Parameters that say an option of a closed form in a parameter file, besides `fa_arch` -> (closed form, option)."""
