"""Where names go beside the dots of a chart, so that they cover neither each other nor other dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GAP = 4.0
"""Between a dot and its name."""
Anchor = Literal["start", "middle", "end"]


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A dot and its name; y grows downwards."""

    x: float
    y: float
    radius: float
    name: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a name is written: the anchor's x and the baseline's y, from the dot's centre."""

    dx: float
    dy: float
    anchor: Anchor


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)


def place_names(
    dots: Sequence[Dot], *, height: float, character: float, right: float, bottom: float
) -> list[Place]:
    """For each dot with a name the first place around it that covers nothing; else what covers least.

    Dots without a name, which are only not to be covered, come last.
    height, character: of a capital letter, and its width. right, bottom: names end there.
    """
    boxes = [_Box(d.x - d.radius, d.y - d.radius, d.x + d.radius, d.y + d.radius) for d in dots]
    taken: list[_Box] = []
    places = []
    for number, dot in enumerate(dot for dot in dots if dot.name):
        others = boxes[:number] + boxes[number + 1 :] + taken
        width = character * len(dot.name)

        def covered(place: Place, dot: Dot = dot, width: float = width, others: list[_Box] = others) -> float:
            box = _name_box(dot, place, width, height)
            outside = max(box.right - right, 0.0) * height + max(box.bottom - bottom, 0.0) * width
            return outside + sum(box.overlap(other) for other in others)

        place = min(_candidates(dot, height), key=lambda p: round(covered(p), 1))
        taken.append(_name_box(dot, place, width, height))
        places.append(place)
    return places


def _candidates(dot: Dot, height: float) -> list[Place]:
    """Below on the right first: there the line of a rising front does not pass."""
    beside, middle = dot.radius + GAP, height / 2
    above, below = 2 - beside, beside + height - 2
    return [
        Place(dx=beside - 2, dy=below, anchor="start"),
        Place(dx=beside, dy=middle, anchor="start"),
        Place(dx=2 - beside, dy=above, anchor="end"),
        Place(dx=0.0, dy=-beside, anchor="middle"),
        Place(dx=0.0, dy=beside + height, anchor="middle"),
        Place(dx=-beside, dy=middle, anchor="end"),
        Place(dx=beside - 2, dy=above, anchor="start"),
        Place(dx=2 - beside, dy=below, anchor="end"),
    ]


def _name_box(dot: Dot, place: Place, width: float, height: float) -> _Box:
    share = {"start": 0.0, "middle": 0.5, "end": 1.0}[place.anchor]
    left, bottom = dot.x + place.dx - share * width, dot.y + place.dy
    return _Box(left, bottom - height, left + width, bottom)
