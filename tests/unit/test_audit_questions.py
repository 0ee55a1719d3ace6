"""Classes and values as yes/no questions: which are asked, whose they are, and how they come back to attributes."""

from __future__ import annotations

import numpy as np
import pytest

from splavu.audit.questions import Question, Questions, personal, questions_of
from splavu.data.private_labels import PrivateColumn


def column(name, kind, values, classes=()):
    return PrivateColumn(name, kind, np.array(values, dtype=float), classes)


def asked(*columns, subjects):
    return questions_of(columns, np.arange(len(subjects)), np.array(list(subjects))).names


def test_a_binary_column_is_one_question_and_a_class_column_one_for_each_class():
    found = asked(
        column("glasses", "binary", [0, 1, 1, np.nan]),
        column("hair", "class", [0, 1, 0, 1], ("black", "red")),
        subjects="abcd",
    )
    assert found == ("glasses", "hair = black", "hair = red")


def test_a_class_of_one_training_subject_is_not_asked():
    found = asked(column("hair", "class", [0, 0, 1, 1, 1], ("black", "red")), subjects="abccc")
    assert found == ("hair = black",)


def test_no_more_than_the_most_frequent_classes_are_asked():
    classes = tuple(f"c{place:02d}" for place in range(20))
    values = [place for place in range(20) for _ in range(3 if place in (4, 17) else 2)]
    subjects = [str(row) for row in range(len(values))]
    found = asked(column("city", "class", values, classes), subjects=subjects)
    assert len(found) == 12
    assert {"city = c04", "city = c17"} < set(found)


def test_quartiles_are_those_of_subjects_not_of_rows():
    """Subject a has nine rows of the least value: by rows it would be the median."""
    subjects = "aaaaaaaaa" + "bcdefgh"
    values = [1] * 9 + [2, 3, 4, 5, 6, 7, 8]
    assert asked(column("age", "value", values), subjects=subjects) == ("age > 2", "age > 4", "age > 6")


def test_a_value_that_never_changes_is_not_asked():
    assert asked(column("age", "value", [3, 3, 3]), subjects="abc") == ()


def test_the_largest_value_is_no_threshold():
    assert asked(column("age", "value", [1, 2, 2, 2]), subjects="abcd") == ("age > 1",)


def test_answers_and_unknown():
    questions = Questions((Question("age > 2", "age", "value", 2.0), Question("hair = red", "hair", "class", 1.0)))
    answers = questions.answers({"age": np.array([2, 3, np.nan]), "hair": np.array([1, 0, 2])}, 3)
    np.testing.assert_array_equal(answers, [[0, 1], [1, 0], [np.nan, 0]])
    assert answers.dtype == np.float32


def test_an_attribute_counts_once_however_many_questions_it_has():
    questions = Questions(
        (Question("a > 1", "a", "value", 1), Question("b", "b", "binary"), Question("a > 2", "a", "value", 2))
    )
    assert questions.attributes == ("a", "b")
    np.testing.assert_allclose(questions.mean(np.array([[1.0, 5.0, 3.0], [np.nan, 4.0, 7.0]])), [[2, 5], [7, 4]])


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("binary", [0, 0, 1, 1], True),
        ("binary", [0, 1, 1, 1], False),
        ("binary", [0, np.nan, 1, 1], True),
        ("class", [2, 2, 0, 0], True),
        ("class", [2, 2, 0, 1], False),
        ("value", [1.6, 1.6, 1.9, 1.9], True),
        ("value", [1.61, 1.59, 1.89, 1.91], True),  # measured twice: within persons 0.4 % of the variance
        ("value", [1.6, 1.8, 1.7, 1.9], False),
    ],
)
def test_what_is_a_persons(kind, values, expected):
    questions = Questions((Question("x", "x", kind),))
    found = personal(questions, {"x": np.array(values)}, np.array(["a", "a", "b", "b"]))
    assert found.tolist() == [expected]
