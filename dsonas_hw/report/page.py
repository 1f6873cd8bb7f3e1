"""Pages: one self-contained HTML file each that asks no network for anything.

    Page ─ parts ─▶ page.html, parts.html (Jinja, everything escaped) + style.css + enhance.js ─▶ report.html

The page's content security policy allows its own style and its own script and nothing else, so that not even
a mistake in escaping could load or run what a stranger's run directory brings.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from dsonas_hw import __version__
from dsonas_hw.report.chart import Chart

if TYPE_CHECKING:
    from jinja2 import Environment

    from dsonas_hw.report.parts import Page, Part


def write_page(page: Page) -> str:
    """The HTML document."""
    script = _resource("enhance.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template("page.html").render(
        page=page, digest=digest, script=Markup(script), style=Markup(_resource("style.css")),
        version=__version__,
    )  # fmt: skip


def render(part: Part) -> Markup:
    """The HTML of one part, everything that it holds escaped; in a text, a `command` stays on one line."""
    if isinstance(part, str):
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(part)))
        return Markup(f"<p>{text}</p>")
    module = _environment().get_template("parts.html").module
    return Markup(getattr(module, type(part).__name__)(part))


def _chart(chart: Chart) -> Markup:
    from dsonas_hw.report.chart_svg import chart_svg

    return Markup(chart_svg(chart))


def _link_networks(sentence: str) -> Markup:
    return Markup(
        re.sub(r"network ([A-Z]+),", r'<a href="#network-\1">network \1</a>,', str(escape(sentence)))
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dsonas_hw.report", ""), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"part": render, "chart": _chart, "linked": _link_networks, "markup": Markup}
    return environment


@lru_cache(maxsize=2)
def _resource(name: str) -> str:
    return (resources.files("dsonas_hw.report") / name).read_text(encoding="utf-8")
