"""Private attributes of any kind as yes/no questions, so that one kind of attacker can be asked all of them.

    binary   the attribute itself
    class    for each class: is it this one?
    value    for each quartile of the training subjects: is it more than that?

Attackers, threat models and sets then work on questions as they do on binary attributes. An attribute's success is the
mean over its questions: macro average precision for classes, and for values an average precision over thresholds. So
attributes of all kinds stand on one scale, each counted once however many questions it has.

Note: attackers learn the thresholds, not the number. What their answers say of the number itself is measured beside it
(`splavu.audit.answers`).

Shapes: N rows, Q questions, A attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.data.private_labels import Kind, PrivateColumn

QUARTILES = (0.25, 0.5, 0.75)
MOST_CLASSES = 12
"""Of a column, those that most training subjects have; a question each."""
FEWEST_SUBJECTS = 2
"""Training subjects of a class; of fewer an attacker would learn a person and no class."""
MOST_WITHIN = 0.1
"""Share of a value's variance that may lie within persons where it still counts as the person's: a height that was
measured twice is personal, the length of a video is not."""


@dataclass(frozen=True)
class Question:
    """One column of labels that attackers are trained on."""

    name: str
    """Such as 'gender', 'hair = red' or 'age > 31'."""
    attribute: str
    kind: Kind
    level: float = 1.0
    """The place of the class, or the threshold; 1 of a binary attribute."""

    def answers(self, values: np.ndarray) -> np.ndarray:  # [N] -> [N] of 0, 1, NaN
        """What holds for these values of the attribute."""
        yes = values > self.level if self.kind == "value" else values == self.level
        return np.where(np.isnan(values), np.nan, yes)


@dataclass(frozen=True)
class Questions:
    """All that attackers are asked, in the order of the columns of their labels."""

    asked: tuple[Question, ...]

    @classmethod
    def binary(cls, attributes: Sequence[str]) -> Questions:
        """A question each."""
        return cls(tuple(Question(name, name, "binary") for name in attributes))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(question.name for question in self.asked)

    @property
    def attributes(self) -> tuple[str, ...]:
        """[A] names, in the order of their first question."""
        return tuple(dict.fromkeys(question.attribute for question in self.asked))

    @property
    def kinds(self) -> dict[str, Kind]:
        return {question.attribute: question.kind for question in self.asked}

    @property
    def place(self) -> np.ndarray:  # [Q]
        """The attribute of each question."""
        place = {name: number for number, name in enumerate(self.attributes)}
        return np.array([place[question.attribute] for question in self.asked], dtype=np.intp)

    def of(self, attribute: str) -> np.ndarray:
        """Places of the questions of one attribute."""
        return np.flatnonzero([question.attribute == attribute for question in self.asked])

    def take(self, kept: np.ndarray) -> Questions:  # indices
        return Questions(tuple(self.asked[q] for q in kept))

    def mean(self, values: np.ndarray) -> np.ndarray:  # [..., Q] -> [..., A]
        """Of each attribute over its questions, those without a value left out."""
        if not self.asked:
            return np.zeros((*np.shape(values)[:-1], 0))
        place = self.place
        of_attributes = [metrics.mean_known(values[..., place == a]) for a in range(len(self.attributes))]
        return np.stack(of_attributes, axis=-1)

    def answers(self, values: Mapping[str, np.ndarray], num_rows: int) -> np.ndarray:  # A x [N] -> [N, Q] float32
        """Labels, from the values of each attribute."""
        columns = [question.answers(values[question.attribute]) for question in self.asked]
        return np.array(columns, dtype=np.float32).reshape(len(columns), num_rows).T


def questions_of(columns: Sequence[PrivateColumn], rows: np.ndarray, subjects: np.ndarray) -> Questions:  # [n], [n]
    """What is asked of each column. Classes and quartiles are those of the rows given: of the training subjects.

    Args:
        columns: Of a table.
        rows: Places in it.
        subjects: Of these rows; every subject counts once, however many rows it has.
    """
    asked: list[Question] = []
    for column in columns:
        values, name = column.values[rows], column.name
        if column.kind == "class":
            levels = _classes(values, subjects)
            asked += [Question(f"{name} = {column.classes[int(level)]}", name, "class", level) for level in levels]
        elif column.kind == "value":
            asked += [Question(f"{name} > {level:.6g}", name, "value", level) for level in _quartiles(values, subjects)]
        else:
            asked.append(Question(name, name, "binary"))
    return Questions(tuple(asked))


def personal(questions: Questions, values: Mapping[str, np.ndarray], persons: np.ndarray) -> np.ndarray:
    """[Q] of bool: questions whose attribute is a person's, the only ones to ask of all videos of a person together.

    Binary and class: no person has it two ways. Value: at most `MOST_WITHIN` of its variance lies within persons.

    Args:
        questions: With A attributes.
        values: Attribute -> [N].
        persons: [N]
    """
    held = []
    for name in questions.attributes:
        known = ~np.isnan(values[name])
        column = np.asarray(values[name][known], dtype=np.float64)
        person = np.unique(persons[known], return_inverse=True)[1]
        mean = np.bincount(person, weights=column) / np.maximum(np.bincount(person), 1)
        within, whole = np.square(column - mean[person]).sum(), np.square(column - metrics.mean_known(column)).sum()
        held.append(bool(within <= (MOST_WITHIN * whole if questions.kinds[name] == "value" else 0.0)))
    return np.array(held, dtype=bool)[questions.place]


def _classes(values: np.ndarray, subjects: np.ndarray) -> list[float]:  # [N], [N]
    """Classes that enough subjects have, the most frequent ones, in their order."""
    known = ~np.isnan(values)
    pairs = np.unique(np.stack([values[known], np.unique(subjects[known], return_inverse=True)[1]]), axis=1)
    levels, count = np.unique(pairs[0], return_counts=True)
    kept = [place for place in np.argsort(-count, kind="stable")[:MOST_CLASSES] if count[place] >= FEWEST_SUBJECTS]
    return sorted(float(levels[place]) for place in kept)


def _quartiles(values: np.ndarray, subjects: np.ndarray) -> list[float]:  # [N], [N]
    """Values that a quarter, a half and three quarters of the subjects do not exceed; never the largest value."""
    known = ~np.isnan(values)
    if not known.any():
        return []
    _, subject, rows = np.unique(subjects[known], return_inverse=True, return_counts=True)
    order = np.argsort(values[known], kind="stable")
    ordered, share = values[known][order], np.cumsum(1 / rows[subject][order]) / len(rows)
    levels = {float(ordered[np.searchsorted(share, quartile - 1e-9)]) for quartile in QUARTILES}
    return sorted(level for level in levels if level < ordered[-1])
