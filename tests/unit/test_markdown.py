"""Markdown tables: aligned in a terminal, and safe in a page."""

from __future__ import annotations

from splavu.reports.markdown import interval, markdown_table, number, percent


def test_columns_line_up():
    lines = markdown_table(["name", "value"], [["a", "1"], ["longer", "12.5"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0] == "| name   | value |"
    assert lines[1] == "|--------|-------|"
    assert lines[3] == "| longer | 12.5  |"


def test_cells_are_text():
    """A name with `|` stays one cell, one with `<` no element, and one over two lines one row."""
    header, _, row = markdown_table(["a|b", "c"], [["<script>", "x\ny"]]).splitlines()
    assert header.replace("\\|", "").count("|") == 3
    assert "\\<script>" in row
    assert "x y" in row
    escaped = markdown_table(["a"], [["x\\|<y\x1b[2J"]]).splitlines()[2]
    assert escaped == r"| x\\\|\<y\\x1b[2J |"


def test_undefined_values():
    assert percent(None) == ""
    assert percent(0.123) == "12.3"
    assert number(None) == "-"
    assert interval([None, 0.5], 100, 1) == "[-, 50.0]"
