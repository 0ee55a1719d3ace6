"""Named rows that installed packages extend."""

from __future__ import annotations

import pytest
from refusals import refused

from splavu.runtime.registry import Registry


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installed packages that add a row each to the group `test.numbers`."""
    (tmp_path / "plugin_rows.py").write_text("SEVEN = 7\nWORD = 'seven'\nONE = 11\n")
    folder = tmp_path / "plugin_rows-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-rows\nVersion: 1\n")
    lines = ("seven = plugin_rows:SEVEN", "word = plugin_rows:WORD", "gone = plugin_rows:GONE", "one = plugin_rows:ONE")
    (folder / "entry_points.txt").write_text("\n".join(("[test.numbers]", *lines)))
    monkeypatch.syspath_prepend(tmp_path)


def registry() -> Registry[int]:
    return Registry({"one": 1, "two": 2}, group="test.numbers", kind=int)


def test_rows_of_the_library_and_of_packages(packages):
    numbers = registry()
    assert list(numbers) == ["one", "two", "seven", "word", "gone"]
    assert len(numbers) == 5
    assert numbers["seven"] == 7
    assert list(numbers) == ["one", "two", "seven", "word", "gone"]
    assert numbers["one"] == 1, "a package replaced a row of the library"


def test_without_packages():
    numbers = registry()
    assert dict(numbers) == {"one": 1, "two": 2}
    assert "seven" not in numbers
    with pytest.raises(KeyError):
        numbers["seven"]


@pytest.mark.parametrize("name", ["word", "gone"])
def test_a_row_of_a_package_that_is_none_is_refused(packages, name):
    numbers = registry()
    assert name in numbers
    with refused(f"entry point '{name}' of test.numbers"):
        numbers[name]
