"""The ``Patterns`` port over the regular expressions of regorus, which take linear time.

They are the ones that policies use: the syntax of RE2, without look-around and back-references. The
engine keeps those that it has compiled. Not safe across threads.
"""

from __future__ import annotations

from typing import Any

import orjson
import regorus

from proxy.engines.evaluating.compiling import UNDEFINED
from proxy.model import dumps
from proxy.ports import Unavailable

MAX_PATTERN_CHARS = 4096
_REPLACE = "package patterns\n\nreplaced := regex.replace(input.text, input.pattern, input.by)\n"


class LinearPatterns:
    """Finds and replaces."""

    def __init__(self) -> None:
        self._engine: Any = regorus.Engine()
        self._engine.add_policy("patterns.rego", _REPLACE)

    def fault(self, pattern: str) -> str | None:
        """What is wrong with a pattern; None where it can be used."""
        if not 0 < len(pattern) <= MAX_PATTERN_CHARS:
            return f"a pattern has 1 to {MAX_PATTERN_CHARS} characters"
        try:
            if self.replace("", pattern, "x"):
                return "it matches the empty text, and so everywhere"
        except Unavailable as exc:
            return str(exc)
        return None

    def replace(self, text: str, pattern: str, by: str) -> str:
        """``text`` with every match replaced; raises ``Unavailable`` where the pattern cannot be used."""
        # A dollar sign would name a group of the match.
        given = {"text": text, "pattern": pattern, "by": by.replace("$", "$$")}
        try:
            self._engine.set_input_json(dumps(given).decode())
            found: str = self._engine.eval_rule_as_json("data.patterns.replaced")
        except (RuntimeError, UnicodeError):
            raise Unavailable("the pattern is too large to be used, or not text") from None
        if found == UNDEFINED:
            raise Unavailable("not a regular expression in the syntax of RE2 (no look-around, no references)")
        replaced: str = orjson.loads(found)
        return replaced
