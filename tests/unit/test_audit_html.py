"""The audit's page: whole, closed, escaped, alone, and with every number where a reader looks for it.

The evidence is made by hand: each figure is unlike any other, so that one found on the page is that one.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import xml.etree.ElementTree as ET
from html import unescape

import pytest
from markupsafe import Markup
from refusals import refused

from splavu.audit.evidence import SCHEMA, read_evidence
from splavu.audit.report.charts import Band, Dot, LineSeries, curve_chart, dot_chart, element, ticks
from splavu.audit.report.formats import number, share
from splavu.audit.report.page import report, write_report

NAMES = ("gender", "glasses")
HOSTILE = "<script>alert('x')</script>&\"quoted\""


class Figures:
    """Values in (0, 1), three digits each, no two alike."""

    def __init__(self) -> None:
        self.counter = itertools.count(101)

    def __call__(self) -> float:
        return next(self.counter) / 1000

    def estimate(self, chance: float | None = None) -> dict:
        low, value, high = self(), self(), self()
        return {"value": value, "low": low, "high": high, "chance": self() if chance is None else chance}


def attribute(name: str, figures: Figures) -> dict:
    return {
        "name": name,
        "attacker": "mean of 2, most of it fresh/logistic",
        "members": {"fresh/logistic": 0.7, "fresh/mlp": 0.3},
        "single": "fresh/logistic",
        "single_ap": figures.estimate(),
        "prevalence": figures(),
        "positives": 40,
        "ap": figures.estimate(),
        "auc": figures.estimate(0.5),
        "balanced_accuracy": figures.estimate(0.5),
        "tpr": [
            {"fpr": 0.01, "value": figures(), "low": figures(), "high": figures(), "negatives": 611},
            {"fpr": 0.001, "value": None, "low": None, "high": None, "negatives": 611},
        ],
        "bits": figures.estimate(0.0),
        "bits_available": figures(),
        "leakage": figures.estimate(0.0),
        "p": figures(),
        "p_holm": figures(),
        "equivalence": {"equivalent": False, "p": 0.9, "low": 0.6, "high": 0.7, "chance": 0.5, "margin": 0.05,
                        "reach": figures()},
        "verdict": "leaks",
    }  # fmt: skip


def found(figures: Figures, names=NAMES, **changes) -> dict:
    attributes = [attribute(name, figures) for name in names]
    return {
        "num_units": 734,
        "num_people": 61,
        "attributes": attributes,
        "left_out": [],
        "cmap": figures.estimate(),
        "single_cmap": figures.estimate(),
        "gain": figures.estimate(0.0),
        "mean_auc": figures.estimate(0.5),
        "leakage": figures.estimate(0.0),
        "equivalence": attributes[0]["equivalence"],
        "verdict": "undecided",
    } | changes


@pytest.fixture
def evidence() -> dict:
    figures = Figures()
    attackers = {
        name: {"validation": [figures(), figures()], "test": [figures(), figures()], "test_spread": [0.0, figures()]}
        for name in ("fresh/logistic", "fresh/mlp")
    }
    rungs = [
        {"name": "semi-informed", "knows": "released features of others", "unit": "clip", "skipped": "",
         "attackers": attackers, "found": found(figures)},
        {"name": "lazy-informed", "knows": "the anonymizer", "unit": "clip", "skipped": "takes the anonymizer (--aam)",
         "attackers": {}, "found": None},
    ]  # fmt: skip
    linked = {key: figures.estimate() for key in ("rank1", "rank5", "mean_ap", "eer", "d_sys", "d_sys_corrected")}
    members = {key: figures.estimate() for key in ("auc", "person_auc", "tpr_at_1_percent")}
    undone = {k: figures.estimate() for k in ("explained", "explained_between_people", "median_rank", "top1")}
    reduction = {"value": 0.31, "low": 0.22, "high": 0.47, "chance": 1.0}
    semi = {"value": 0.83, "low": 0.79, "high": 0.88, "chance": 1.0}
    return {
        "schema": SCHEMA,
        "versions": {"splavu": "0.1.0", "torch": "2.x"},
        "command": {"seed": 7, "quick": True, "released": ["released.h5"]},
        "files": [{"role": "released", "name": "released.h5", "sha256": "ab" * 32, "attributes": {"encoder": "demo"}}],
        "attributes": [
            {"name": name, "personal": True, "prevalence": {"train": figures(), "test": figures()}} for name in NAMES
        ],
        "people": {"test": {"clips": 734, "videos": 250, "persons": 61}},
        "families": {"logistic": {"class": "LogisticAttacker", "stochastic": False, "options": {"penalties": [0.1]}}},
        "rungs": rungs,
        "raw": {"clip": found(figures)},
        "strongest": {"clip": found(figures), "person": found(figures, NAMES[:1], left_out=["glasses"])},
        "headline": {"sentence": "s", "unit": "clip", "reduction": reduction, "raw_excess": figures(),
                     "released_excess": figures(), "semi_informed": semi, "attributes": ["gender"],
                     "num_attributes": 2, "by_unit": {"clip": reduction, "person": semi},
                     "own_attributes": {"clip": figures.estimate(1.0), "person": semi},
                     "least_protected": {"name": "glasses", "unit": "clip", "leakage": figures.estimate(0.0),
                                         "num_compared": 3},
                     "draws": {}, "verdict": "leaks"},
        "gates": [{"claim": "attackers succeed on raw features", "passed": True, "detail": "cMAP 91.7", "numbers": {}},
                  {"claim": "features stay", "passed": None, "detail": "takes the anonymizer", "numbers": {}}],
        "learning_curve": [{"family": "logistic", "people": people, "rows": 10 * people, "ap": [figures(), figures()],
                            "gain": None if people == 8 else figures.estimate(0.0)}
                           for people in (8, 16)],
        "code_length": {"released": {name: {"bits": 600.0, "prior_bits": 700.0, "uniform_bits": 800.0, "rows": 800,
                                            "compression_over_prior": 1.167} for name in NAMES}},
        "linkage": {"released to released": {**linked, "p": figures(), "metric": "cosine"},
                    "raw to raw": {"skipped": "nobody has two videos"}},
        "inversion": {"ridge": {**undone, "num_rows": 734}},
        "membership": {"assumes": "it learnt from them", "distance": members},
        "warnings": ["8 keys have no label"],
        "seconds": 12.0,
        "valid": True,
    }  # fmt: skip


def tree(text: str) -> ET.Element:
    """The page as XML: it parses only if every element is closed and everything is escaped."""
    doctype, _, document = text.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return ET.fromstring(document)


def visible(text: str) -> str:
    """Words on the page outside the appendix that carries the file."""
    page = tree(text)
    for parent in page.iter():
        for child in list(parent):
            if child.get("class") == "all" or child.tag in ("style", "desc"):
                parent.remove(child)
    return " ".join(part for part in page.itertext())


def estimates(value, path=()):
    """Every [value, low, high] of the evidence, with its keys."""
    if isinstance(value, dict):
        if {"value", "low", "high"} <= set(value):
            yield path, value
            return
        for key, item in value.items():
            yield from estimates(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from estimates(item, (*path, place))


def test_the_same_evidence_gives_the_same_bytes(evidence):
    assert report(evidence) == report(copy.deepcopy(evidence))


def test_is_one_closed_document_with_one_first_heading(evidence):
    page = tree(report(evidence))
    assert len(list(page.iter("h1"))) == 1
    assert page.get("lang") == "en"
    assert all(listing.find("caption").text.strip() for listing in page.iter("table"))


def test_ids_are_unique_and_drawings_say_what_they_show(evidence):
    page = tree(report(evidence))
    ids = [node.get("id") for node in page.iter() if node.get("id")]
    assert len(ids) == len(set(ids)) > 0
    drawings = list(page.iter("svg"))
    assert len(drawings) == 6  # ladder, attributes, curve, each for two widths
    for drawing in drawings:
        assert drawing.get("role") == "img"
        assert set(drawing.get("aria-labelledby").split()) <= set(ids)
        assert drawing.find("title").text
        assert drawing.find("desc").text


def test_every_estimate_of_the_evidence_can_be_read_on_the_page(evidence):
    words = visible(report(evidence))
    for path, one in estimates(evidence):
        if "rungs" in path and "attributes" in path:
            continue  # a rung's own attributes are in the appendix; the page shows the strongest of all rungs
        if one["value"] is None:
            continue
        forms = (
            [f"{one[end] * factor:.{digits}f}" for end in ("value", "low", "high")]
            for factor, digits in ((100, 1), (100, 0), (1, 3), (1, 2), (1, 0))
        )
        assert any(all(form in words for form in of_rounding) for of_rounding in forms), path


def test_every_leaf_of_the_evidence_is_in_the_appendix(evidence):
    shown = next(node for node in tree(report(evidence)).iter("pre"))
    assert json.loads("".join(shown.itertext())) == evidence


def test_attribute_rows_hold_that_attributes_numbers(evidence):
    page = tree(report(evidence))
    listing = next(
        t for t in page.iter("table") if t.find("caption").text.startswith("Strongest attackers that see one")
    )
    for row, one in zip(listing.find("tbody"), evidence["strongest"]["clip"]["attributes"], strict=True):
        words = " ".join(row.itertext())
        for expected in (
            one["name"],
            f"{100 * one['ap']['value']:.1f}",
            f"{100 * one['ap']['chance']:.1f}",
            f"{one['auc']['value']:.3f}",
            f"{100 * one['balanced_accuracy']['value']:.1f}",
            f"{100 * one['tpr'][0]['value']:.1f}",
            "not estimable",
            f"{one['bits']['value']:.2f}",
            f"{one['bits_available']:.2f}",
            f"{one['leakage']['value']:.2f}",
            f"{one['p_holm']:.3f}",
            f"± {one['equivalence']['reach']:.3f}",
            one["verdict"],
        ):
            assert expected in words


def test_headline_says_what_is_gone_and_what_is_left(evidence):
    words = visible(report(evidence))
    assert "31 %" in words
    assert "between 22 % and 47 %: 53 % to 78 % can still be read." in words
    assert "83 % [79, 88]" in words


def test_what_leaks_from_another_unit_than_the_headlines_is_told_at_once(evidence):
    evidence["headline"]["verdict"] = "at chance"
    for one in evidence["strongest"]["clip"]["attributes"]:
        one["verdict"] = "at chance"
    header = next(tree(report(evidence)).iter("header"))
    assert "Better than chance: gender from all clips of a person." in "".join(header.itertext())
    evidence["strongest"]["person"]["attributes"][0]["verdict"] = "undecided"
    assert "Better than chance:" not in visible(report(evidence))


def test_attackers_below_chance_read_nothing_and_not_less(evidence):
    evidence["headline"]["reduction"] = {"value": 1.16, "low": 0.96, "high": 1.22, "chance": 1.0}
    words = visible(report(evidence))
    assert "116 %" in words
    assert "0 % to 4 % can still be read. More than 100 % means that attackers did worse than chance." in words


def test_a_failed_gate_comes_first_and_is_loud(evidence):
    assert "Not valid" not in visible(report(evidence))
    evidence["gates"].append({"claim": "shuffled labels fail", "passed": False, "detail": "cMAP 77.7", "numbers": {}})
    page = tree(report(evidence))
    alarm = next(node for node in page.iter("section"))
    assert alarm.get("role") == "alert"
    assert "shuffled labels fail" in "".join(alarm.itertext())
    gates = next(t for t in page.iter("table"))
    assert "FAILED" in "".join(gates.find("tbody")[0].itertext())


def test_what_was_not_run_is_named(evidence):
    evidence["membership"] = {}
    words = visible(report(evidence))
    for expected in ("takes the anonymizer (--aam)", "Left out: membership", "8 keys have no label", "Quick:",
                     "From all clips of a person: glasses", "nobody has two videos"):  # fmt: skip
        assert expected in words


def test_names_from_a_table_are_text_and_never_elements(evidence):
    hostile = json.loads(json.dumps(evidence).replace("gender", json.dumps(HOSTILE)[1:-1]))
    hostile["files"][0]["name"] = hostile["warnings"][0] = hostile["linkage"].setdefault("k", {"skipped": HOSTILE})[
        "skipped"
    ]
    text = report(hostile)
    page = tree(text)
    assert not list(page.iter("script"))
    assert "<script" not in text
    assert HOSTILE in [node.text for node in page.iter("th")]
    for node in page.iter():
        assert not any(name.startswith("on") for name in node.attrib)


def test_nothing_is_fetched(evidence):
    text = report(evidence)
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert not re.search(r"\b(src|href|srcset|action)=", text)
    assert "default-src 'none'" in unescape(text)


PARTS = ("versions", "command", "files", "attributes", "people", "families", "rungs", "raw", "strongest",
         "headline", "gates", "learning_curve", "code_length", "linkage", "inversion", "membership",
         "warnings", "seconds")  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_works_without_a_part(evidence, part):
    whole = visible(report(evidence))
    without = copy.deepcopy(evidence)
    del without[part]
    assert visible(report(without)) != whole


def test_works_with_nothing_and_with_nothing_known(evidence):
    assert "no number" in visible(report({"schema": SCHEMA}))

    def emptied(value):
        if isinstance(value, dict):
            return {key: None if key in ("value", "low", "high", "reach") else emptied(v) for key, v in value.items()}
        return [emptied(item) for item in value] if isinstance(value, list) else value

    words = visible(report(emptied(evidence)))
    assert "None" not in words
    assert "nan" not in words.split()


def test_no_reduction_is_told_by_its_sentence(evidence):
    evidence["headline"] |= {"sentence": "no raw features were given", "reduction": {"value": None}, "unit": None}
    assert "No raw features were given." in visible(report(evidence))


def test_written_and_read_again(evidence, tmp_path):
    (tmp_path / "evidence.json").write_text(json.dumps(evidence))
    path = write_report(tmp_path / "report.html", read_evidence(tmp_path / "evidence.json"))
    assert path.read_text(encoding="utf-8") == report(evidence)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evidence.json", "report.html"]


@pytest.mark.parametrize(
    "content",
    [None, "{", "[]", '{"schema": "other/1"}'],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "evidence.json"
    if content is not None:
        path.write_text(content)
    with refused(path):
        read_evidence(path)


@pytest.mark.parametrize(("low", "high"), [(0.0, 51.5), (-3.2, 12.0), (0.45, 1.0), (37.0, 37.0), (1e-5, 2e-5), (-9, 0)])
def test_ticks_are_even_and_enclose(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-12
    assert marks[-1] >= high - 1e-12
    steps = [after - before for before, after in itertools.pairwise(marks)]
    assert max(steps) - min(steps) < 1e-9
    assert 2 <= len(marks) <= 8


def test_dots_stand_where_their_values_are():
    """Places are affine in the values, up to the two digits that the drawing keeps."""
    values = (0.0, 10.0, 25.0, 40.0)
    bands = [Band(str(value), (Dot("released", value, value - 1, value + 1, "said"),)) for value in values]
    drawn = ET.fromstring(dot_chart(bands, title="t", description="d", axis="a", caption="c"))
    wide = next(node for node in drawn.iter("svg"))
    places = [float(node.get("cx")) for node in wide.iter("circle")]
    unit = (places[1] - places[0]) / 10
    assert places == pytest.approx([places[0] + unit * value for value in values], abs=0.1)
    width = float(wide.get("viewBox").split()[2])
    assert all(0 < place < width for place in places)


def test_charts_of_nothing_are_nothing():
    nothing = Dot("raw", None, None, None, "")
    assert dot_chart([Band("a", (nothing,))], title="t", description="d", axis="a", caption="c") == ""
    assert (
        curve_chart(
            [LineSeries("a", ((4, 1.0),))], title="t", description="d", axes=("x", "y"), level=None, caption="c"
        )
        == ""
    )


def test_elements_escape_text_and_attributes():
    drawn = element("p", "a < b & c", title='say "x" <', class_="k", text_anchor="end", x=1.23456789)
    node = ET.fromstring(drawn)
    assert node.text == "a < b & c"
    assert node.attrib == {"title": 'say "x" <', "class": "k", "text-anchor": "end", "x": "1.2346"}
    assert element("p", Markup("<b>x</b>"), [element("i"), "<"]) == "<p><b>x</b><i></i>&lt;</p>"


def test_rounded_nothing_has_no_sign():
    assert number(-0.0004) == "0.00"
    assert number(-0.4) == "−0.40"
    assert number(None) == "–"
    assert share(-0.004) == "0 %"
