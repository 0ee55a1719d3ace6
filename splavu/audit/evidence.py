"""The evidence file: all results of an audit, and everything needed to run it again. A report reads nothing else.

`evidence.json` is `Evidence` with its dataclasses as objects, tuples as lists, and null for what is undefined. Keys:

    schema          'splavu-audit/2'
    versions        splavu, Python, torch, NumPy, device (runtime.versions)
    command         what was given, and every option of `run.AuditOptions`
    files           [role, name, sha256, attributes] of each store, table and checkpoint
    attributes      [name, personal (no person has it both ways), prevalence by split]
    columns         [name, kind (binary, class, value, 'not read'), counts] of each column of the table of labels; only
                    binary ones are attacked
    people          split -> number of clips, videos and persons
    families        name -> options of the attacker, whether it is stochastic
    rungs           [name, knows, unit, skipped, attackers, found]: `attackers` is every attacker's mean over seeds of
                    the validation and test AP and its spread, an entry an attribute; `found` judges the strongest
    raw             unit -> found, the same on raw features
    strongest       unit -> found, over all threat models of the unit
    headline        [sentence, unit, reduction, ...]
    gates           [claim, state (passed, failed, undecided, not run), passed (null: the last two), detail, numbers]
    learning_curve  [family, people, rows, ap: one an attribute, in the order of `attributes`; gain: of their mean over
                    the point before], released clips
    code_length     'released', 'raw' -> attribute -> bits, prior_bits (a code without features), uniform_bits, rows,
                    compression_over_prior
    linkage         gallery to probes, of videos: 'raw to raw', 'released to released', 'raw to released', 'second
                    release to released', 'released to released, best pair of clips', 'released to released, by names'
                    (where names group videos by subject) -> rank1, rank5, mean_ap, eer, tpr_at_1_percent and
                    tpr_at_1_permille of false positives (null: too few pairs), d_sys, d_sys_corrected, p, metric, and
                    across kinds same_video_rank1; and of sets of clips of test subjects, 'raw to raw, 4 clips against
                    as many', ... -> the same, and subjects, who have as many; or `skipped`, with the reason
    inversion       'ridge', 'mlp' -> explained, explained_between_people, median_rank, top1, num_rows
    membership      signal, 'strongest signal', 'logistic' -> auc, person_auc, tpr_at_1_percent; `assumes` says what
                    must hold for it to mean anything; or `skipped`
    names           what released names reveal of who is who: grouping (the part of the name that groups videos by
                    subject; null: none does), its precision and recall over pairs of test videos; `without`, unit ->
                    the leakage under the strongest attackers that read no names
    singling_out    'raw', 'released' -> 'singling out by a clip', 'singling out by a video', 'linkability',
                    'inference', 'inference of QUESTION' -> attack, control (success against released subjects and
                    against a control group that was not released), risk; vectors: num_vectors of the test subjects,
                    of_vectors and of_clips, the shares that one subject alone has; clips_per_subject (median); with
                    a quantizer bits_per_clip and bits_per_subject
    valid           no gate failed or is undecided
    warnings, seconds

`found` (`UnitResult`) holds an `AttributeResult` for each attribute and their mean. An `Estimate` is [value, low, high,
chance]: 95 % interval by resampling whole test subjects (and seeds); chance is the score without any information.

Note: AP has two chance levels. `prevalence` is the share of positives; `ap.chance` is the mean AP of the same scores
when labels are permuted between test subjects, which is a little higher where subjects are few. Excess and leakage are
counted from the second.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splavu.attacks.gates import exit_code
from splavu.attacks.rows import json_values
from splavu.errors import UserError
from splavu.metrics.estimates import Estimate
from splavu.metrics.inference import Equivalence
from splavu.release.model_card import AUDIT_SCHEMA
from splavu.runtime.files import PathLike, write_text
from splavu.runtime.records import read_record

SCHEMA = AUDIT_SCHEMA


@dataclass(frozen=True)
class Rate:
    """True positives at a fixed rate of false ones."""

    fpr: float
    value: float | None
    """None: not estimable, there are too few negatives."""
    low: float | None
    high: float | None
    negatives: int
    """Test units of the attribute's other class."""


@dataclass(frozen=True)
class Measured:
    """What the answers to an attribute's questions say of its class or value (`splavu.audit.answers`)."""

    name: str
    """spearman, top1 or balanced accuracy."""
    estimate: Estimate
    p: float
    """Share of permutations of the test subjects' values that give as much."""


@dataclass(frozen=True)
class AttributeResult:
    """The strongest attacker's success on one attribute; of a class or a value, the mean over its questions."""

    name: str
    kind: str
    """binary, class or value."""
    questions: tuple[str, ...]
    """That could be judged (`splavu.audit.questions`)."""
    beside: tuple[Measured, ...]
    """Of a value Spearman's correlation, of a class top-1 and balanced accuracy over classes."""
    attacker: str
    """The ensemble in words."""
    members: Mapping[str, float]
    """Threat model, way and family -> share of the ensemble, the largest first; chosen on validation subjects."""
    single: str
    """The one attacker that is best on validation subjects."""
    single_ap: Estimate
    prevalence: float
    positives: int
    """Test units that have it; of several questions, where they are fewest."""
    ap: Estimate
    auc: Estimate
    balanced_accuracy: Estimate
    """At the threshold that is best on validation subjects."""
    tpr: tuple[Rate, ...]
    bits: Estimate
    """Usable information per unit, in bits, by scores calibrated on validation subjects; chance 0."""
    bits_available: float
    """The entropy of the label, by the shares among training subjects."""
    leakage: Estimate
    """Excess of AP over chance as a share of the raw features' excess; NaN without raw features."""
    p: float
    """Share of permutations of the test subjects' labels that give as high an AP; of a value, of what it and Spearman's
    correlation give, the smaller one doubled."""
    p_holm: float
    """The same, adjusted for the number of attributes (Holm)."""
    equivalence: Equivalence
    """Whether AUC is 0.5 up to the margin."""
    verdict: str
    """leaks (p_holm <= 0.05), at chance (equivalent), faint (both), undecided (neither)."""


@dataclass(frozen=True)
class UnitResult:
    """The strongest attackers' success on one kind of unit."""

    num_units: int
    num_people: int
    attributes: tuple[AttributeResult, ...]
    left_out: tuple[str, ...]
    """Attributes of which the test has one class only; by person, those that a person has both ways too."""
    cmap: Estimate
    """Mean AP over the attributes that could be judged."""
    single_cmap: Estimate
    """The same by the one attacker that is best on validation subjects, attribute by attribute."""
    gain: Estimate
    """`cmap` less `single_cmap`, on the same draws."""
    mean_auc: Estimate
    leakage: Estimate
    """Of the mean excess."""
    equivalence: Equivalence
    """Of the mean AUC."""
    verdict: str
    worst_protected: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Risk of single subjects (`splavu.audit.subject_risk`): how many could be judged, `median`, `p90` and `max` over
    them, each beside luck, `p` of the largest, how many lie `beyond_luck`, and `who`. Names belong to the owner: the
    page leaves them out."""


@dataclass(frozen=True)
class ThreatModelResult:
    """The attacks of one threat model on one kind of unit."""

    name: str
    knows: str
    unit: str
    skipped: str
    attackers: Mapping[str, Mapping[str, list[float]]]
    """Attacker -> 'validation', 'test' and 'test_spread' -> [A]: mean and standard deviation over seeds."""
    found: UnitResult | None


@dataclass(frozen=True)
class LeastProtected:
    """The attribute of which the largest share is left, over all units that it is judged at."""

    name: str
    unit: str
    leakage: Estimate
    """Interval simultaneous over all attributes and units where raw features reveal the attribute."""
    num_compared: int
    """Pairs of attribute and unit."""


@dataclass(frozen=True)
class Headline:
    """The one number: how much of the leakage above chance is removed at the unit at which least is removed."""

    sentence: str
    unit: str | None
    """clip, video or person: where least is removed; without raw features, where most is found."""
    attributes: tuple[str, ...]
    """Those that all units share: the only ones that units can be compared by."""
    num_attributes: int
    """Of the table, that were attacked."""
    reduction: Estimate
    """1 - leakage of the mean over `attributes`, under the strongest attackers; NaN without raw features. Its interval
    reaches from the least lower end of `by_unit` to the least upper end, and holds wherever those do."""
    raw_excess: float
    released_excess: float
    semi_informed: Estimate
    """The same under newly trained attackers that see one clip: the figure in most publications."""
    by_unit: Mapping[str, Estimate]
    """Reduction over the same `attributes`, 95 % intervals that hold for all units at once."""
    own_attributes: Mapping[str, Estimate]
    """Reduction over all attributes that a unit has: not to be compared between units."""
    least_protected: LeastProtected | None
    """None without raw features, or where they reveal nothing."""
    draws: Mapping[str, str]
    """'unit' or 'unit/attribute' -> leakage on each draw of subjects and seeds, in thousandths ('-' where undefined),
    so that audits of the same subjects can be put together."""
    verdict: str
    """leaks (of some attribute and unit, p adjusted for all of them), at chance (all are), faint, undecided."""


@dataclass(frozen=True)
class Gate:
    """A check that an audit must pass."""

    claim: str
    passed: bool | None
    """None: not run, or undecided."""
    detail: str
    numbers: Mapping[str, Any]
    state: str = ""
    """passed, failed, not run, or undecided: the test subjects are too few for it to pass or fail."""

    def __post_init__(self) -> None:
        if not self.state:
            object.__setattr__(self, "state", {True: "passed", False: "failed", None: "not run"}[self.passed])


@dataclass(frozen=True)
class Evidence:
    """See the head of this module."""

    schema: str
    versions: Mapping[str, str]
    command: Mapping[str, Any]
    files: tuple[Any, ...]
    attributes: tuple[Mapping[str, Any], ...]
    people: Mapping[str, Mapping[str, int]]
    families: Mapping[str, Mapping[str, Any]]
    rungs: tuple[ThreatModelResult, ...]
    raw: Mapping[str, UnitResult]
    strongest: Mapping[str, UnitResult]
    headline: Headline
    gates: tuple[Gate, ...]
    learning_curve: tuple[Mapping[str, Any], ...]
    code_length: Mapping[str, Mapping[str, Mapping[str, float]]]
    linkage: Mapping[str, Any]
    inversion: Mapping[str, Any]
    membership: Mapping[str, Any]
    warnings: tuple[str, ...]
    seconds: float
    columns: tuple[Mapping[str, Any], ...] = ()
    names: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    singling_out: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether no gate failed or is undecided."""
        return self.exit_code == 0

    @property
    def exit_code(self) -> int:
        """0; 3 if a gate failed; 4 if one is undecided."""
        return exit_code(gate.state for gate in self.gates)


def plain(value: Any) -> Any:
    """Dataclasses, arrays and tuples as JSON holds them; null for what is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        value = float(f"{value:.7g}")  # more digits than the seeds repeat would only look exact
    return json_values(value)


MARKS = (b'"schema": "splavu-audit/',)
"""All evidence that this program has written begins with this (`splavu.runtime.files.check_target`)."""


def write_evidence(path: PathLike, evidence: Evidence, *, inputs: Iterable[PathLike] = ()) -> Path:
    """Write the evidence as JSON, complete or not at all; none of `inputs` is replaced."""
    content = json.dumps(plain(evidence) | {"valid": evidence.valid}, indent=1)
    return write_text(path, content + "\n", inputs=inputs)


def read_evidence(path: str | Path) -> dict[str, Any]:
    """The evidence as JSON holds it.

    Raises:
        UserError: No such file, no JSON, or not of an audit.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "there is no such file", "python -m splavu audit ... --out FOLDER writes it")
    evidence = read_record(path, "run the audit again")
    schema = evidence.get("schema") if isinstance(evidence, dict) else None
    if schema != SCHEMA:
        raise UserError(path, f"is no evidence of an audit: schema {schema!r}, expected '{SCHEMA}'", "audit again")
    return evidence
