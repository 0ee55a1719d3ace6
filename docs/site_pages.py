"""Pages of the site that lie elsewhere, or are made from the code: a hook of MkDocs (mkdocs.yml).

    pip install -r requirements.txt && mkdocs serve

README.md is the home page, its companions and benchmarks/README.md are pages, with their links led to where the pages
are on the site. commands.md has what `splavu COMMAND --help` prints, reference.md the docstrings of `import splavu`.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parents[1]
FROM_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""File of the repository -> page of the site."""
LINK = re.compile(r"(!?\[)([^\]]*)\]\(([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for place, page in FROM_THE_ROOT.items():
        files.append(File.generated(config, page, content=(REPOSITORY / place).read_text()))
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that hold in the repository to the pages of the site."""
    place = next((place for place, name in FROM_THE_ROOT.items() if name == page.file.src_uri), None)
    here = posixpath.dirname(place or f"docs/{page.file.src_uri}")
    return LINK.sub(lambda link: _on_the_site(link, here), markdown)


def _on_the_site(link: re.Match[str], here: str) -> str:
    begin, text, target, end = link.groups()
    if "://" in target:
        return link[0]
    path = posixpath.normpath(posixpath.join(here, target))
    if path in FROM_THE_ROOT:
        return f"{begin}{text}]({FROM_THE_ROOT[path]}{end}"
    if path.startswith("docs/"):
        return f"{begin}{text}]({path.removeprefix('docs/')}{end}"
    if not (REPOSITORY / path).exists():
        raise FileNotFoundError(f"{here or 'README.md'} links to {target}, which is not there")
    return text  # a file of the repository that is no page


def commands() -> str:
    """Every command's help, as wide as a page is."""
    from splavu.__main__ import COMMANDS
    from splavu.runtime import cli

    os.environ["COLUMNS"] = "78"
    parts = ["# Commands\n\nWhat `splavu COMMAND --help` prints.\n"]
    for name, what in COMMANDS.items():
        module = importlib.import_module(f"splavu.commands.{name.replace('-', '_')}")
        parser = cli.command_parser(module, f"splavu {name}")
        parts.append(f"## {name}\n\n{what}\n\n```text\n{parser.format_help().rstrip()}\n```\n")
    return "\n".join(parts)


def reference() -> str:
    """The docstrings of what `import splavu` offers."""
    import splavu

    names = sorted((name for name in splavu.__all__ if not name.startswith("__")), key=str.casefold)
    return "\n".join(["# Reference\n", *(f"::: splavu.api.{name}\n" for name in names)])
