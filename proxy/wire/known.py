"""Tools that came before: applications send the same ``tools`` with each request.

What depends on nothing but the tools is worked out once for all requests that bring the same ones, and their
JSON is not read again (docs/adr/0014-tools-are-known-by-their-bytes.md).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import orjson

Json = dict[str, Any]
T = TypeVar("T")

_KEY = b'"tools":'
_MAX_BYTES = 64 * 2**20
_MAX_WORKED_OUT = 12
_MAX_ALIKE = 16
# So much of an array finds those that may be it; shorter ones are read as fast as they are found.
_START = 64
# A byte of JSON takes 6 of memory in tools as applications write them, and 30 in what is made to take much.
_MEMORY_PER_BYTE, _MEMORY_PER_ARRAY = 40, 4096


class KnownTools(list[Json]):
    """The ``tools`` of requests, and their compact JSON. They are shared, so nothing in them may change."""

    __slots__ = ("_worked_out", "raw")

    def __init__(self, tools: Sequence[Json], raw: bytes) -> None:
        super().__init__(tools)
        self.raw = raw
        self._worked_out: dict[Hashable, Any] = {}

    def worked_out(self, work_out: Callable[..., T], *about: Hashable) -> T:
        """As the function of this name."""
        key = (work_out, *about)
        try:
            found: T = self._worked_out[key]
        except KeyError:
            if len(self._worked_out) >= _MAX_WORKED_OUT:
                self._worked_out.clear()
            found = self._worked_out[key] = work_out(self, *about)
        return found

    @property
    def derived(self) -> Collection[Any]:
        """All that is kept of what was worked out."""
        return self._worked_out.values()


def worked_out(tools: Sequence[Json], work_out: Callable[..., T], *about: Hashable) -> T:
    """What a pure function makes of tools, and of ``about``, which is no larger than they are.

    Of known tools it is worked out the first time only, and then shared: nobody may change it.
    """
    if isinstance(tools, KnownTools):
        return tools.worked_out(work_out, *about)
    return work_out(tools, *about)


Leave = Callable[[Sequence[Json], frozenset[str], frozenset[Any]], Sequence[Json]]
"""A pure function: the tools that are left without these names and these others."""


def left_of(
    tools: Sequence[Json], leave: Leave, names: Collection[str], others: frozenset[Any] = frozenset()
) -> Sequence[Json]:
    """What ``leave`` leaves of the tools; the very ``tools`` where that is all of them.

    ``others``, unlike ``names``, has to be among the tools: what is not would be kept with them.
    """
    gone = frozenset(names)
    if not isinstance(tools, KnownTools) or sum(map(len, gone)) > len(tools.raw):
        left = leave(tools, gone, others)
        return tools if left == tools else left
    known = tools.worked_out(_known_left, leave, gone, others)
    return tools if known is None else known


def _known_left(
    tools: Sequence[Json], leave: Leave, names: frozenset[str], others: frozenset[Any]
) -> KnownTools | None:
    left = leave(tools, names, others)
    return None if left == tools else KnownTools(left, orjson.dumps(left))


class ToolsMemo:
    """The tools that came of late, whoever sent them, found again by all of their bytes; bounded."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        """``max_bytes``: of memory, about; of one array an eighth of it at most."""
        self._alike: OrderedDict[bytes, list[KnownTools]] = OrderedDict()
        self.bytes, self._max_bytes = 0, max_bytes

    def __len__(self) -> int:
        return sum(map(len, self._alike.values()))

    def __iter__(self) -> Iterator[KnownTools]:
        return (known for alike in self._alike.values() for known in alike)

    def read(self, raw: bytes) -> Json | None:
        """The request that ``raw`` is, where it is compact and its tools are known; None where it has to be
        read.

        That these bytes are its tools is a guess until the request, written with them, is ``raw``: the same
        proof as that of the strict reading (docs/adr/0002).
        """
        at = raw.rfind(_KEY) + len(_KEY)
        known = self._find(raw, at)
        if known is None:
            return None
        rest = b"".join((raw[:at], b"null", raw[at + len(known.raw) :]))
        try:
            body: Json = orjson.loads(rest)
            body["tools"] = orjson.Fragment(known.raw)
            if orjson.dumps(body) != raw:
                return None
        except (ValueError, TypeError):
            return None
        body["tools"] = known
        return body

    def _find(self, raw: bytes, at: int) -> KnownTools | None:
        start = raw[at : at + _START]
        for known in self._alike.get(start, ()):
            if raw.startswith(known.raw, at):
                self._alike.move_to_end(start)
                return known
        return None

    def known(self, tools: Sequence[Json]) -> Sequence[Json]:
        """These tools, which were read strictly, as the known ones that they are; kept from now on.

        As they are where they cannot be written exactly: integers beyond 64 bits, too deep.
        """
        try:
            raw = orjson.dumps((tools,))[1:-1]  # as deep as in a request
        except TypeError:
            return tools
        for known in self._alike.get(raw[:_START], ()):
            if known.raw == raw:
                return known
        known = KnownTools(tools, raw)
        self._keep(known)
        return known

    def _keep(self, known: KnownTools) -> None:
        if _memory(known) > self._max_bytes // 8:
            return
        alike = self._alike.setdefault(known.raw[:_START], [])
        if len(alike) >= _MAX_ALIKE:
            self.bytes -= _memory(alike.pop(0))
        alike.append(known)
        self._alike.move_to_end(known.raw[:_START])
        self.bytes += _memory(known)
        while self.bytes > self._max_bytes:
            _, oldest = self._alike.popitem(last=False)
            self.bytes -= sum(map(_memory, oldest))


def _memory(known: KnownTools) -> int:
    return len(known.raw) * _MEMORY_PER_BYTE + _MEMORY_PER_ARRAY
