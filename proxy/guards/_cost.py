"""How much work a schema can make of arguments: a bound that is known before the validator runs.

The validator runs to its end and cannot be interrupted, and a schema of a kilobyte can ask for 2^50
steps. So each *place* that a value can have is worked out beforehand, with how often which subschemas
are applied there; the work is then at most the sum over the places of the values.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.guards._graph import Graph, Node
from proxy.guards._patterns import BACKTRACK_LIMIT, Patterns
from proxy.guards._plan import BUDGET_NS, NOTHING, UNIT_NS, UNKNOWN, Place, Plan
from proxy.model import dumps

_MAX_APPLIED = 1 << 20  # subschemas applied to one value, each as often as it is
_MAX_VISITS = 4096  # until those are found
_MAX_CHAIN = 100  # references followed from one subschema to the next
_MAX_STEPS = 40_000  # of working this out
_META_SCHEMA_UNITS = 200
# unevaluatedProperties evaluates what stands beside it again, each time (measured: about three times).
_AGAIN = 4

Applied = list[tuple[Node, int]]


class TooExpensive(ValueError):
    """Already one value could keep the validator busy for too long."""


def survey(schema: Node, graph: Graph, patterns: Patterns) -> Plan:
    """Work out the places of ``schema``; raises ``TooExpensive`` and ``Unclear``."""
    return _Survey(graph, patterns).run(schema)


class _Survey:
    def __init__(self, graph: Graph, patterns: Patterns) -> None:
        self._graph, self._patterns = graph, patterns
        self._places: list[Place] = [Place()]
        self._numbers: dict[frozenset[tuple[int, int]], int] = {frozenset(): NOTHING}
        self._ends: dict[tuple[int, int, int], int] = {}
        self._waiting: deque[tuple[int, Applied]] = deque()
        self._local: dict[int, tuple[int, int, int]] = {}
        self._steps = 0
        self._complete = True

    def run(self, schema: Node) -> Plan:
        if self._number([(schema, 1)]) == UNKNOWN:
            raise TooExpensive("checking one value against it takes too many steps")
        # Breadth first: where the steps run out, it is the deepest places that stay unknown.
        while self._waiting:
            number, applied = self._waiting.popleft()
            self._descend(self._places[number], applied)
        return Plan(self._places, self._free_bytes())

    def _free_bytes(self) -> int:
        if not self._complete or any(place.look_ns for place in self._places):
            return 0
        worst = max(place.units * UNIT_NS + place.scan_ns for place in self._places)
        return BUDGET_NS // max(1, worst)

    def _number(self, roots: Applied) -> int:
        counts: Counter[int] = Counter()
        nodes: dict[int, Node] = {}
        if self._steps > _MAX_STEPS or not self._close(roots, counts, nodes):
            self._complete = False
            return UNKNOWN
        key = frozenset(counts.items())
        if (number := self._numbers.get(key)) is None:
            applied = [(nodes[node], times) for node, times in counts.items()]
            number = self._numbers[key] = self._add(self._place(applied), applied)
        return number

    def _add(self, place: Place, applied: Applied) -> int:
        ends = not any(self._graph.below(node).all() for node, _ in applied)
        alike = (place.units, place.scan_ns, place.look_ns)
        if ends and alike in self._ends:
            return self._ends[alike]
        number = len(self._places)
        self._places.append(place)
        if ends:
            self._ends[alike] = number
        else:
            self._waiting.append((number, applied))
        return number

    def _close(self, roots: Applied, counts: Counter[int], nodes: dict[int, Node]) -> bool:
        total = visits = 0

        def visit(node: Node, times: int, above: tuple[int, ...]) -> bool:
            nonlocal total, visits
            total, visits = total + times, visits + 1
            self._steps += 1
            if total > _MAX_APPLIED or visits > _MAX_VISITS or len(above) > _MAX_CHAIN:
                return False
            if id(node) in above:
                return True  # the validator, too, ends a circle of references
            counts[id(node)] += times
            nodes[id(node)] = node
            inside = (*above, id(node))
            again = _AGAIN if "unevaluatedProperties" in node or "unevaluatedItems" in node else 1
            return all(visit(child, times * again, inside) for child in self._graph.in_place(node))

        return all(visit(node, times, ()) for node, times in roots)

    def _place(self, applied: Applied) -> Place:
        place = Place()
        for node, times in applied:
            units, scan_ns, look_ns = self._cost(node)
            place.units += units * times
            place.scan_ns += scan_ns * times
            place.look_ns += look_ns * times
        return place

    def _cost(self, node: Node) -> tuple[int, int, int]:
        if (cost := self._local.get(id(node))) is None:
            cost = self._local[id(node)] = _cost(node, self._patterns)
        return cost

    def _descend(self, place: Place, applied: Applied) -> None:
        belows = [(self._graph.below(node), times) for node, times in applied]
        names = {name for below, _ in belows for name in below.named}
        self._steps += len(belows) * (1 + len(names))
        if self._steps > _MAX_STEPS:
            self._complete = False
            place.key = place.item = UNKNOWN
            return
        place.key = self._number(_times((b.other_keys + b.every_key, n) for b, n in belows))
        place.item = self._number(_times((b.other_items + b.every_item, n) for b, n in belows))
        for name in names:
            under: list[tuple[list[Node], int]] = []
            for below, times in belows:
                is_key = isinstance(name, str)
                other = below.other_keys if is_key else below.other_items
                under.append((below.named.get(name, other), times))
                under.append((below.every_key if is_key else below.every_item, times))
            place.named[name] = self._number(_times(under))


def _times(groups: Iterable[tuple[list[Node], int]]) -> Applied:
    return [(node, times) for nodes, times in groups for node in nodes]


def _cost(node: Mapping[str, Any], patterns: Patterns) -> tuple[int, int, int]:
    units = len(node)
    for keyword in ("required", "allOf", "anyOf", "oneOf"):
        if isinstance(listed := node.get(keyword), list):
            units += len(listed)
    for keyword in ("enum", "const", "dependentRequired", "dependencies"):
        if keyword in node:
            units += len(dumps(node[keyword])) // 8
    if isinstance(node.get("$ref"), str) and not node["$ref"].startswith("#"):
        units += _META_SCHEMA_UNITS
    scan_ns = 2 if "format" in node else 0
    pattern = patterns.known.get(node["pattern"]) if isinstance(node.get("pattern"), str) else None
    if pattern is None:
        return units, scan_ns, 0
    if pattern.looks_around:
        return units + BACKTRACK_LIMIT, scan_ns, pattern.size // 64
    return units, scan_ns + pattern.size // 8, 0
