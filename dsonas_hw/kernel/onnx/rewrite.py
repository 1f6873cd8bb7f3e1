"""Replace groups of operations in an ONNX graph by single ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dsonas_hw.kernel.onnx.graph import Graph, Node


class Rewriter:
    """Operations of a graph with an index of who makes and who reads each tensor, kept up to date."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.position = {id(node): float(index) for index, node in enumerate(graph.nodes)}
        self._alive = {id(node): node for node in graph.nodes}
        self._maker: dict[str, Node] = {}
        self._reader: dict[str, Node] = {}
        self._num_reads = Counter(graph.outputs)
        for node in graph.nodes:
            self._index(node)

    def _index(self, node: Node) -> None:
        for name in node.outputs:
            self._maker[name] = node
        for name in node.inputs:
            self._num_reads[name] += 1
            self._reader[name] = node

    def maker(self, name: str, *ops: str) -> Node | None:
        """Return the operation that makes a tensor, if it is one of `ops`."""
        node = self._maker.get(name)
        return node if node is not None and not node.domain and (not ops or node.op in ops) else None

    def only_reader(self, name: str, *ops: str) -> Node | None:
        """Return the single operation that reads a tensor, if there is just one and it is one of `ops`."""
        node = self._reader.get(name)
        if node is None or self._num_reads[name] != 1 or id(node) not in self._alive:
            return None
        return node if not node.domain and node.op in ops else None

    def other_operand(self, node: Node, name: str) -> str:
        """Return the second of two operands, given the first; "" if there are not two."""
        others = [operand for operand in node.inputs if operand != name]
        return others[0] if len(others) == 1 and len(node.inputs) == 2 else ""

    def is_closed(self, members: Sequence[Node], sink: Node) -> bool:
        """Return whether nobody outside reads what the members, but for the sink, make."""
        reads = Counter(name for node in members for name in node.inputs)
        inner = [name for node in members if node is not sink for name in node.outputs if name]
        return all(self._num_reads[name] == reads[name] for name in inner)

    def replace(self, members: Sequence[Node], new: Node) -> None:
        """Put one operation in the place of the last of `members`."""
        place = max(self.position[id(node)] for node in members)
        for node in members:
            del self._alive[id(node)]
            for name in node.inputs:
                self._num_reads[name] -= 1
        self._alive[id(new)] = new
        self.position[id(new)] = place
        self._index(new)

    def finish(self) -> Graph:
        """Return the graph with all replacements made."""
        self.graph.nodes = sorted(self._alive.values(), key=lambda node: self.position[id(node)])
        return self.graph
