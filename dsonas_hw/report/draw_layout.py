"""Where everything stands in the drawing of a block: geometry only, no output format.

    row −1     input          An edge to the next row is one curve. An edge that skips rows leaves its
    row 0      level 1        source into a *lane*, a vertical line in the gap between two columns, runs down
    row 1      level 2        past the rows in between, and curves into its target. All skipping edges of
      ⋮          ⋮            one source share its lane, so that 128 edges are 13 lines and their branches.
    row R      merge, +

Every operation has its column. Columns and levels with nothing alive are left out.
"""

from __future__ import annotations

from collections import defaultdict

from dsonas_hw.architecture.architecture import Block
from dsonas_hw.report.draw_geometry import BlockLayout, Box, Route, around, bend, spread
from dsonas_hw.space.space import INPUT_NODE, SearchSpace

BOX_WIDTH, BOX_HEIGHT = 78.0, 30.0
LANE = 7.0
"""Distance of two lanes."""
_GAP, _OUTER_GAP = 22.0, 8.0
_LEFT = 50.0
"""Room for the names of the levels."""
_PILL_WIDTH, _PILL_HEIGHT = 62.0, 24.0
_PLUS = 10.0
_SHORTCUT = 24.0


def lay_out_block(space: SearchSpace, block: Block, *, shortcut_conv: bool = False) -> BlockLayout:
    """Place boxes and edges of a block.

    shortcut_conv: draw the release's 1×1 convolution on the shortcut.
    """
    if block.is_identity:
        return _identity(shortcut_conv)
    return _BlockPlan(space, block).finish(shortcut_conv)


class _BlockPlan:
    """The steps of the layout, each filling in what the next needs."""

    def __init__(self, space: SearchSpace, block: Block) -> None:
        width = len(space.operations)
        columns = sorted({(n - 1) % width for n in block.nodes})
        self.num_columns = len(columns)
        self.levels = sorted({space.level_of(n) for n in block.nodes})
        self.num_rows = len(self.levels)
        self.out = space.num_nodes + 1
        self.row: dict[int, int] = {INPUT_NODE: -1, self.out: self.num_rows}
        self.column: dict[int, int] = {}
        for node in block.nodes:
            self.row[node] = self.levels.index(space.level_of(node))
            self.column[node] = columns.index((node - 1) % width)
        self.edges = [(s, n) for n in block.nodes for s in block.inputs[n - 1]]
        self.edges += [(s, self.out) for s in block.output]
        self.targets: dict[int, list[int]] = defaultdict(list)
        for source, target in self.edges:
            self.targets[source].append(target)
        self._choose_gaps()
        self._place_columns()
        self._place_rows()

    def _choose_gaps(self) -> None:
        """A gap beside its own column for every source with an edge that skips a row."""
        self.gaps: dict[int, list[int]] = {gap: [] for gap in range(self.num_columns + 1)}
        for source in sorted(self.targets, key=lambda s: (self.row[s], s)):
            far = [t for t in self.targets[source] if self.row[t] > self.row[source] + 1]
            if not far:
                continue
            if source == INPUT_NODE:
                home = (self.num_columns - 1) / 2
                candidates = list(range(1, self.num_columns)) or [0, 1]
            else:
                home = float(self.column[source])
                candidates = [self.column[source], self.column[source] + 1]
            wanted = sum(self.column.get(t, home) for t in far) / len(far)
            best = min(candidates, key=lambda g: (len(self.gaps[g]) + 0.6 * abs(g - 0.5 - wanted), g))
            self.gaps[best].append(source)
        for gap, sources in self.gaps.items():  # later sources nearer to their own column: fewer crossings
            sources.sort(key=lambda s: self._lane_order(gap, s))

    def _lane_order(self, gap: int, source: int) -> tuple[int, int]:
        if source == INPUT_NODE:
            return 1, 0
        return (0, -source) if self.column[source] < gap else (2, source)

    def _place_columns(self) -> None:
        self.lane_x: dict[int, float] = {}
        self.column_x: list[float] = []
        x = _LEFT
        for gap in range(self.num_columns + 1):
            outer = gap in (0, self.num_columns)
            sources = self.gaps[gap]
            room = LANE * (len(sources) - 1)
            width = max(_OUTER_GAP if outer else _GAP, room + 20.0 if sources else 0.0)
            for position, source in enumerate(sources):
                self.lane_x[source] = x + width / 2 - room / 2 + LANE * position
            x += width
            if gap < self.num_columns:
                self.column_x.append(x + BOX_WIDTH / 2)
                x += BOX_WIDTH
        self.right = x
        self.centre = (self.column_x[0] + self.column_x[-1]) / 2

    def _place_rows(self) -> None:
        """Rows stand further apart where more curves cross between them."""
        arriving = [0] * (self.num_rows + 1)
        for source, target in self.edges:
            arriving[self.row[target]] += 1
            if self.row[target] > self.row[source] + 1:
                arriving[self.row[source] + 1] += 1
        self.input = Box(x=self.centre, y=8 + _PILL_HEIGHT / 2, width=_PILL_WIDTH, height=_PILL_HEIGHT)
        bottom, self.row_y = self.input.bottom, []
        for row in range(self.num_rows):
            band = min(104.0, max(40.0, 32.0 + 1.4 * arriving[row]))
            self.row_y.append(bottom + band + BOX_HEIGHT / 2)
            bottom = self.row_y[-1] + BOX_HEIGHT / 2
        self.nodes = {
            n: Box(x=self.column_x[c], y=self.row_y[self.row[n]], width=BOX_WIDTH, height=BOX_HEIGHT)
            for n, c in self.column.items()
        }
        self.merge_top = bottom + 38.0

    # -- edges -----------------------------------------------------------------------------------------

    def _leaving(self, source: int, target: int) -> float:
        """x at which an edge enters the band above its target: its lane's, or the source's own."""
        if self.row[target] > self.row[source] + 1:
            return self.lane_x[source]
        return self._box(source).x

    def _box(self, node: int) -> Box:
        return self.input if node == INPUT_NODE else self.nodes[node]

    def _source_ports(self) -> dict[tuple[int, int], float]:
        """(source, first stop) → x on the source's lower side; the lane is stop −1."""
        ports: dict[tuple[int, int], float] = {}
        for source, targets in self.targets.items():
            box = self._box(source)
            stops: dict[int, float] = {}
            for target in targets:
                if self.row[target] > self.row[source] + 1:
                    stops[-1] = self.lane_x[source]
                else:
                    stops[target] = box.x if target == self.out else self.nodes[target].x
            ordered = sorted(stops, key=lambda stop: stops[stop])
            for stop, x in zip(ordered, spread(box, len(ordered)), strict=True):
                ports[source, stop] = x
        return ports

    def _target_ports(self) -> dict[tuple[int, int], float]:
        """Edge → x on the target's upper side, in the order in which they arrive."""
        ports: dict[tuple[int, int], float] = {}
        for node, box in self.nodes.items():
            arriving = [edge for edge in self.edges if edge[1] == node]
            arriving.sort(key=lambda edge: self._leaving(*edge))
            for edge, x in zip(arriving, spread(box, len(arriving)), strict=True):
                ports[edge] = x
        return ports

    def _routes(self) -> dict[tuple[int, int], Route]:
        leave, arrive = self._source_ports(), self._target_ports()
        routes: dict[tuple[int, int], Route] = {}
        for source, target in self.edges:
            box, lane = self._box(source), self.row[target] > self.row[source] + 1
            x, y = leave[source, -1 if lane else target], box.bottom
            start, segments = (x, y), []
            if lane:
                x, next_top = self.lane_x[source], self.row_y[self.row[source] + 1] - BOX_HEIGHT / 2
                segments.append(bend(start, (x, next_top)))
                y = self.row_y[self.row[target] - 1] + BOX_HEIGHT / 2
                segments.append((x, y))
            if target == self.out:
                segments.append((x, self.merge_top))
            else:
                segments.append(bend((x, y), (arrive[source, target], self.nodes[target].top)))
            routes[source, target] = Route(start=start, segments=tuple(segments))
        return routes

    def finish(self, shortcut_conv: bool) -> BlockLayout:
        routes = self._routes()
        landings = [routes[edge].end[0] for edge in self.edges if edge[1] == self.out]
        left, right = min(landings), max(landings)
        x = (left + right) / 2
        width = max(right - left + 20, 76.0 if len(landings) == 1 else 124.0)
        merge = Box(x=x, y=self.merge_top + 13, width=width, height=26)
        plus = Box(x=x, y=merge.bottom + 26 + _PLUS, width=2 * _PLUS, height=2 * _PLUS)
        output = Box(x=x, y=plus.bottom + 22 + _PILL_HEIGHT / 2, width=_PILL_WIDTH, height=_PILL_HEIGHT)
        x = max(self.right, merge.x + merge.width / 2) + _SHORTCUT
        start = (self.input.x + self.input.width / 2, self.input.y)
        middle = Box(x=x, y=(self.input.y + plus.y) / 2, width=34, height=24) if shortcut_conv else None
        return BlockLayout(
            width=x + (24 if shortcut_conv else 12),
            height=output.bottom + 6,
            input=self.input,
            nodes=self.nodes,
            edges=routes,
            merge=merge,
            plus=plus,
            output=output,
            shortcut=around(start, x, (plus.x + _PLUS, plus.y), middle),
            shortcut_box=middle,
            stem=(
                Route(start=(plus.x, merge.bottom), segments=((plus.x, plus.top),)),
                Route(start=(plus.x, plus.bottom), segments=((plus.x, output.top),)),
            ),
            levels=tuple(zip(self.levels, self.row_y, strict=True)),
        )


def _identity(shortcut_conv: bool) -> BlockLayout:
    """Input and output, joined by the shortcut alone."""
    x = 110.0
    source = Box(x=x, y=20, width=_PILL_WIDTH, height=_PILL_HEIGHT)
    output = Box(x=x, y=136, width=_PILL_WIDTH, height=_PILL_HEIGHT)
    middle = Box(x=x, y=78, width=34, height=24) if shortcut_conv else None
    shortcut = [Route(start=(x, source.bottom), segments=((x, middle.top if middle else output.top),))]
    if middle:
        shortcut.append(Route(start=(x, middle.bottom), segments=((x, output.top),)))
    return BlockLayout(
        width=220,
        height=156,
        input=source,
        nodes={},
        edges={},
        merge=None,
        plus=None,
        output=output,
        shortcut=tuple(shortcut),
        shortcut_box=middle,
        stem=(),
        levels=(),
    )
