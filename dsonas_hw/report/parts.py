"""What pages are made of, as plain data. How each part looks says the macro of its name in `parts.html`.

A part is a `str` (a paragraph), a `Table`, a `Chart`, or one of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dsonas_hw.architecture.architecture import Architecture
from dsonas_hw.report.chart import Chart
from dsonas_hw.report.draw import draw_block
from dsonas_hw.report.draw_network import drawn_blocks
from dsonas_hw.report.explorer import Explorer
from dsonas_hw.report.numbers import count_of
from dsonas_hw.report.table import Table


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The answer in one line."""

    text: str
    mood: Literal["good", "bad", "open", ""] = ""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """The title of what follows within a section."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Warning:
    """Something that must not be overlooked."""

    heading: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Remarks that a reader should know, set apart; nothing for no items."""

    heading: str
    items: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A sentence per device."""

    sentences: Sequence[tuple[str, str]]
    """(device, its sentence, in which `network B` leads to that network); an empty device is never hidden."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A few large numbers, the first of them stressed: (what it is, the number)."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """A list of names and values."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Code:
    """A file, as it is."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The layers from image to classes: (what, its shape)."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawing with its title and caption."""

    svg: str
    title: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Charts, drawings and tables side by side."""

    items: Sequence[Chart | Drawing | Table]
    small: bool = False
    devices: Sequence[str] = ()
    """One per item, for the page's filter."""
    explorer: Explorer | None = None
    """Stands beside them."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """Something folded away."""

    summary: str
    parts: Sequence[Part]
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class DeviceFilter:
    """Boxes that hide devices, once the script makes them work."""

    devices: Sequence[str]


Part = (
    str | Table | Chart | Headline | Heading | Warning | Notes | Answers | Facts | Pairs | Code | Steps
    | Drawing | Figures | Details | DeviceFilter | Explorer
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the navigation."""

    id: str
    heading: str
    parts: Sequence[Part]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole document: what stands above its heading, the heading, what stands below, and the sections."""

    title: str
    kicker: str
    heading: str
    subtitle: str
    sections: Sequence[Section]


def block_drawings(architecture: Architecture) -> Figures:
    """The blocks of a network, drawn."""
    drawings = [
        Drawing(
            svg=draw_block(architecture.space, block, shortcut_conv=conv),
            title=title[:1].upper() + title[1:],
            caption="Pruned to the identity."
            if block.is_identity
            else f"{count_of(len(block.nodes), 'operation')}, {count_of(block.num_edges, 'edge')}.",
        )
        for title, block, conv in drawn_blocks(architecture)
    ]
    return Figures(items=drawings, small=len(drawings) > 2)


def missing_notes(lines: Sequence[str], *, at_most: int = 12) -> Notes:
    """What an unfinished study does not have yet."""
    more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
    heading = "This study is not complete; start it again to go on. Not done yet:"
    return Notes(heading=heading, items=[*lines[:at_most], *more])
