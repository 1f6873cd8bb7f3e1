"""The shell of every report: one self-contained HTML file that asks no network for anything.

The page's content security policy allows its own style and its own script and nothing else, so that not even
a mistake in escaping could load or run what a stranger's run directory brings.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from importlib import resources

from dsonas_hw import __version__


@lru_cache(maxsize=2)
def _resource(name: str) -> str:
    return (resources.files("dsonas_hw.report") / name).read_text(encoding="utf-8")


def page(*, title: str, header: str, sections: Iterable[tuple[str, str, str]], data: str = "") -> str:
    """A whole HTML document.

    header: what stands above the sections. sections: (id, heading, inner HTML) of each; they make the
    navigation. data: `embedded_json` elements for the script.
    """
    sections = list(sections)
    script = _resource("enhance.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    links = "".join(f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(heading)}</h2>'
        f"{inner}</section>"
        for name, heading, inner in sections
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_resource('style.css')}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the content</a>\n<div class="page">\n'
        f'<header>{header}<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f'<main id="content">\n{body}\n</main>\n'
        f"<footer>Written by dsonas-hw {escape(__version__)}. "
        "This page loads nothing from the network.</footer>\n"
        f"</div>\n{data}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def embedded_json(name: str, value: object) -> str:
    """Data for the script; `<` is written so that no text can end the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'


def figure(svg: str, caption: str, *, title: str = "") -> str:
    """A `<figure>`; `svg` is markup, title and caption are text."""
    strong = f"<strong>{escape(title)}.</strong> " if title else ""
    return f"<figure>{svg}<figcaption>{strong}{escape(caption)}</figcaption></figure>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def pairs(items: Iterable[tuple[str, str]]) -> str:
    """A list of names and values."""
    return '<dl class="pairs">' + "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in items
    ) + "</dl>"  # fmt: skip


def facts(items: Sequence[tuple[str, str]]) -> str:
    """A few large numbers, the first of them stressed."""
    return '<dl class="facts">' + "".join(
        f'<div{" class=first" if position == 0 else ""}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'
        for position, (name, value) in enumerate(items)
    ) + "</dl>"  # fmt: skip


def notes(items: Sequence[str], *, heading: str) -> str:
    """Remarks that a reader should know, set apart; nothing for no items."""
    if not items:
        return ""
    rows = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<div class="notes" role="note">{escape(heading)}<ul>{rows}</ul></div>'


def warning(heading: str, text: str) -> str:
    """Something that must not be overlooked."""
    return f'<div class="warning" role="note"><strong>{escape(heading)}</strong>{escape(text)}</div>'
