"""Elements of a page that stands alone: every text escaped, every element closed, one style, nothing fetched.

What a reader would get wrong: `Markup` is what has been escaped already. A plain string that is put into an element is
text, whatever it looks like; only what these functions give passes as elements.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape


class Markup(str):
    """Elements, escaped and closed."""

    __slots__ = ()


Content = str | Markup | Iterable["Content"] | None

VOID = frozenset({"meta", "br", "hr", "line", "rect", "circle", "path"})


def element(tag: str, /, *content: Content, **attributes: str | float | None) -> Markup:
    """`<tag attributes>content</tag>`; an attribute `class_` is class, '_' in a name is '-', None leaves it out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if tag in VOID:
        return Markup(f"<{tag}{given} />")
    return Markup(f"<{tag}{given}>{joined(content)}</{tag}>")


def joined(content: Content) -> Markup:
    """Elements and texts one after the other; texts are escaped."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, str):
        return Markup(escape(content, quote=False))
    return Markup("".join(joined(one) for one in content))


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[Content]],
    *,
    words: Collection[str] = (),
    class_: str | None = None,
) -> Markup:
    """A table with its caption; the first cell of a row is its heading. Nothing where there are no rows.

    Args:
        caption: Above it.
        header: Names of the columns.
        rows: Contents; what `cell` gave is taken as it is.
        words: Columns that are read and not compared: set to the left, and wrapped.
        class_: A style.
    """
    style = ["word" if name in words else None for name in header]
    head = element("tr", [element("th", name, scope="col", class_=c) for name, c in zip(header, style, strict=True)])
    body = []
    for first, *others in rows:
        cells = [
            content if _is_cell(content) else cell(content, class_=style[place])
            for place, content in enumerate(others, start=1)
        ]
        body.append(element("tr", element("th", first, scope="row"), cells))
    if not body:
        return Markup("")
    made = element("table", element("caption", caption), element("thead", head), element("tbody", body), class_=class_)
    # What is wider than a telephone scrolls by itself, by keyboard too.
    return element("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def cell(*content: Content, **attributes: str | float | None) -> Markup:
    """A table cell with attributes of its own."""
    return element("td", *content, **attributes)


def _is_cell(content: Content) -> bool:
    return isinstance(content, Markup) and content.startswith("<td")


def page(title: str, *content: Content) -> str:
    """A whole document."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"  # a browser is told what is so anyway: nothing is fetched
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}" />'),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', *content), lang='en')}\n"


def _text(value: str | float) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2024; --soft: #555d66; --rule: #d9dde2; --wash: #f4f6f8;
  --accent: #0b6a74; --grey: #7b858f; --alarm: #a61b1b; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e8eaed; --soft: #a9b1ba; --rule: #343a41;
  --wash: #1d2126; --accent: #58c2cc; --grey: #8d97a1; --alarm: #ff8f85; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
h1, h2, h3 { line-height: 1.2; font-weight: 600; text-wrap: balance; }
h1 { font-size: 1.15rem; margin: 0; } h2 { font-size: 1.35rem; margin: 3.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
p, ul, dl { max-width: 44rem; margin: .5rem 0 .9rem; } li { margin: .25rem 0; }
header p { margin: .1rem 0 1rem; } .soft, caption, figcaption { color: var(--soft); font-size: .9rem; }
.number { font-size: clamp(2.6rem, 9vw, 4.4rem); line-height: 1; font-weight: 600; color: var(--accent);
  margin: 1.4rem 0 .4rem !important; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.invalid .number { color: var(--soft); text-decoration: line-through; }
.lead { font-size: 1.2rem; line-height: 1.45; }
.alarm { border: 3px solid var(--alarm); color: var(--alarm); padding: .9rem 1.1rem; margin: 1.4rem 0; }
.alarm h2 { margin: 0 0 .3rem; } .alarm p { margin: .2rem 0; }
.failed { color: var(--alarm); font-weight: 700; } .leaks { font-weight: 600; }
figure { margin: 1.2rem 0; } figcaption { max-width: 44rem; }
.narrow { display: none; } svg { display: block; width: 100%; height: auto; }
.wide { max-width: 54rem; }
svg text { paint-order: stroke; stroke: var(--paper); stroke-width: 3px;
  font-size: 12.5px; fill: var(--ink); font-family: inherit; } svg .faint { fill: var(--soft); }
svg .head { font-weight: 600; } svg .grid { stroke: var(--rule); } svg .margin { fill: var(--wash); }
svg .zero { stroke: var(--ink); }
svg .raw { stroke: var(--grey); fill: var(--paper); stroke-width: 2; } svg .raw.end { stroke-width: 1.5; }
svg .released { stroke: var(--accent); fill: var(--accent); stroke-width: 2; }
svg .line { fill: none; stroke: var(--accent); stroke-width: 2; } svg .dashed { stroke-dasharray: 5 4; }
.scroll { overflow-x: auto; margin: 1rem 0 1.4rem; } .scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 .45rem; } th { text-align: left; font-weight: 500; }
th, td { padding: .34rem .6rem .34rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { color: var(--soft); border-bottom: 1px solid var(--soft); vertical-align: bottom; }
td, thead th + th { text-align: right; } td { white-space: nowrap; }
td.word, thead th.word { text-align: left; white-space: normal; } td.verdict { text-align: left; white-space: normal; }
td.word { min-width: 7rem; } td.word:last-child { min-width: 11rem; } td.verdict { padding-left: .8rem; }
caption { position: sticky; left: 0; width: min(100%, calc(100vw - 2.5rem)); }
.range { color: var(--soft); display: block; font-size: .78rem; font-weight: 400;
  white-space: nowrap; }
.heat td { padding: .34rem .5rem; text-align: right; border-bottom: 2px solid var(--paper);
  border-right: 2px solid var(--paper);
  background: color-mix(in srgb, var(--accent) calc(var(--share) * 55%), var(--wash)); }
.heat td.best { font-weight: 700; box-shadow: inset 0 0 0 1.5px var(--ink); }
code, pre { font: .8rem/1.5 ui-monospace, "SF Mono", Consolas, "DejaVu Sans Mono", monospace; }
code { overflow-wrap: anywhere; }
pre { overflow: auto; background: var(--wash); padding: 1rem; max-height: 30rem; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; }
summary { cursor: pointer; margin: .6rem 0; font-weight: 500; } a { color: var(--accent); }
@media (max-width: 40rem) { body { padding: 1.4rem 1rem 3rem; } .wide { display: none; } .narrow { display: block; }
  .lead { font-size: 1.08rem; } h2 { margin-top: 2.4rem; } }
@page { margin: 14mm; }
@media print { :root { --paper: #fff; --ink: #000; --soft: #444; --rule: #ccc; --wash: #f2f2f2; --accent: #0b6a74;
    --grey: #777; --alarm: #a00; }
  body { max-width: none; padding: 0; font-size: 10pt; } figure, tr, h2, h3 { break-inside: avoid; }
  h2, h3, caption, thead { break-after: avoid; } table { font-size: 7pt; } .range { font-size: 6.2pt; }
  td.word, td.word:last-child { min-width: 0; } caption { position: static; width: auto; }
  .soft, caption, figcaption { font-size: 8.5pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .scroll, pre { overflow: visible; max-height: none; } .all pre { display: none; }
  details.print::details-content { content-visibility: visible; block-size: auto; } }
"""
