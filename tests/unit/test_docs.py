"""What the documents name exists: files, links, commands, modules."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from splavu.__main__ import COMMANDS, STUDY_COMMANDS

FOLDERS = (
    "benchmarks", "bias", "docs", "feature_extraction", "gait", "mgfn", "pahmdb", "params", "splavu", "study", "tests",
    "tridet", "vp",
)  # fmt: skip
PAGES = sorted([*REPOSITORY.glob("*.md"), *(page for name in FOLDERS for page in (REPOSITORY / name).rglob("*.md"))])
IDS = [str(page.relative_to(REPOSITORY)) for page in PAGES]
SUFFIXES = r"(?:py|sh|md|yaml|txt|toml|cff|png|svg)"
CURRENT = [name for name in IDS if name != "CHANGELOG.md"]
"""Without the page that also names what is gone."""


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_resolve(page):
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{link} is not there"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("name", CURRENT)
def test_named_files_are_there(name):
    page = REPOSITORY / name
    text = page.read_text()
    names = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]+\.{SUFFIXES})\b", text))
    names |= set(re.findall(rf"(?:python|bash) ([\w./-]+\.{SUFFIXES})\b", text))
    gone = [name for name in names if not (REPOSITORY / name).exists() and not (page.parent / name).exists()]
    assert not [name for name in gone if name != "my_params.py"]


@pytest.mark.parametrize("name", CURRENT)
def test_named_modules_are_there(name):
    text = (REPOSITORY / name).read_text()
    entry_points = {"splavu.encoders"}
    for module in set(re.findall(r"`((?:splavu|study|tridet|mgfn)(?:\.\w+)+)`", text)) - entry_points:
        pkgutil.resolve_name(module)


@pytest.mark.parametrize("name", CURRENT)
def test_named_commands_exist(name):
    """Every `python -m splavu COMMAND` or `splavu COMMAND` in a code span or block."""
    named = set(re.findall(r"(?:python -m |`|\n)splavu ([a-z][a-z-]+)", (REPOSITORY / name).read_text()))
    assert named <= COMMANDS.keys() | STUDY_COMMANDS.keys()


@pytest.mark.parametrize("name", CURRENT)
def test_named_tests_are_there(name):
    for file, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", (REPOSITORY / name).read_text()):
        assert f"\ndef {test}(" in (REPOSITORY / file).read_text(), f"{file} has no {test}"


def test_the_api_page_lists_every_public_name():
    """Made again by `python docs/build_api.py`."""
    spec = importlib.util.spec_from_file_location("build_api", REPOSITORY / "docs/build_api.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    written = re.findall("^##+ .*$", build.PAGE.read_text(), re.M)
    assert written == re.findall("^##+ .*$", build.page(), re.M)
    for package in build.PACKAGES:
        for name in importlib.import_module(package).__all__:
            assert f"### {name}" in written or name == "__version__"


def test_the_site_has_every_page():
    """`mkdocs build --strict` in run_tests.sh finds links that lead nowhere."""
    home, *sections = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]
    named = [page for section in sections for pages in section.values() for entry in pages for page in entry.values()]
    ours = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    made = set(re.findall(r'"(\w+\.md)"', (REPOSITORY / "docs/site_pages.py").read_text())) - {"README.md"}
    assert home == {"Home": "index.md"}
    assert len(set(named)) == len(named)
    assert ours <= {*named} <= ours | made


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) < 150
