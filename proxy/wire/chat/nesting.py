"""Where the one value of a JSON text ends, when the text comes in pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARK = re.compile(r'\\.|\\\Z|["{}\[\]]', re.DOTALL)


class Nesting:
    """Reads each piece once, however many there are: a parser would begin anew with each."""

    __slots__ = ("_depth", "_ended", "_in_string", "_read", "_rest")

    def __init__(self) -> None:
        self._depth = self._read = 0
        self._in_string = self._ended = False
        self._rest = ""

    def ends_in(self, pieces: Sequence[str]) -> bool:
        """Whether, with those of the pieces that are new, as many brackets are closed as were opened.

        That is said once: from there on the text is one value, or never will be.
        """
        if self._ended:
            return False
        for piece in pieces[self._read :]:
            self._take(piece)
        self._read = len(pieces)
        return self._ended

    def _take(self, piece: str) -> None:
        text, self._rest = self._rest + piece, ""
        for match in _MARK.finditer(text):
            mark = match[0]
            if mark == '"':
                self._in_string = not self._in_string
            elif mark == "\\":
                self._rest = mark
            elif not self._in_string and mark[0] != "\\":
                self._depth += 1 if mark in "{[" else -1
                self._ended = self._ended or self._depth <= 0
