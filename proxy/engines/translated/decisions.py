"""A translation that decides: its functions compiled, the data beside them, and an eye on what comes out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.engines.translated import values
from proxy.engines.translated.builtins import BUILTINS
from proxy.engines.translated.program import Translation
from proxy.engines.translated.values import FUEL, UNDEFINED, State, Unknown, plain

log = logging.getLogger("callgate.policies")

_RUNTIME = {name: found for name, found in vars(values).items() if not name.startswith("__")}

# The first decisions after a change, and a few of all others, are asked of the embedded engine as well.
_FIRST, _EVERY = 32, 512
# What the translation could not tell so often in a row is asked of it a few times more only.
_MISSES, _TRY_EVERY = 64, 64


@dataclass(slots=True)
class _Deciding:
    """One package."""

    decide: Callable[[State], Any]
    decided: int = 0
    missed: int = 0
    """So often in a row it could not tell."""


class Translated:
    """The decisions of one set of policies, as far as they were translated."""

    def __init__(self, translation: Translation, data: Mapping[str, Any]) -> None:
        self._translation = translation
        self._names: dict[str, Any] = {**_RUNTIME, "BUILTINS": BUILTINS, "ONCE": (None,), "DATA": data}
        self._deciding: dict[str, _Deciding] = {}

    def steps(self) -> Iterator[None]:
        """Compile piece by piece; it decides once this has come to its end."""
        for name, text in self._translation.constants:
            self._names[name] = eval(text, self._names)  # noqa: S307 -- written by ``program``
        for text in (self._translation.inputs, *self._translation.functions):
            self._define(text)
            yield
        self._inputs = self._names["inputs"]
        decisions = self._translation.decisions
        self._deciding = {package: _Deciding(self._names[name]) for package, name in decisions.items()}

    def _define(self, text: str) -> None:
        try:
            code = compile(text, "<policies>", "exec", dont_inherit=True)
        except (SyntaxError, RecursionError, MemoryError):  # nested deeper than Python takes
            name = text[len("def ") : text.index("(")]
            code = compile(f"def {name}(*given):\n raise Unknown", "<policies>", "exec", dont_inherit=True)
        exec(code, self._names)  # noqa: S102 -- written by ``program``, and no text of a policy but as a literal

    def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """The decision, None where it is undefined; raises ``Unknown`` where the embedded engine has to."""
        deciding = self._deciding.get(package)
        if deciding is None:
            raise Unknown
        if deciding.missed >= _MISSES:
            deciding.missed += 1
            if deciding.missed % _TRY_EVERY:
                raise Unknown
        state: State = [None] * self._translation.slots
        state[0], state[1] = input, FUEL
        deciding.missed += 1
        try:
            _must_be_text(input)
            self._inputs(state)
            found = deciding.decide(state)
            found = None if found is UNDEFINED else plain(state, found)
        except RecursionError:
            raise Unknown from None
        deciding.missed = 0
        deciding.decided += 1
        return found

    def forget(self) -> None:
        """Decide no more. Functions and the names that they see hold one another, and would wait for the
        collector with all of the data."""
        self._deciding.clear()
        self._names.clear()

    def is_doubted(self, package: str) -> bool:
        """Whether the embedded engine is to be asked for the last decision as well."""
        decided = self._deciding[package].decided
        return decided <= _FIRST or not decided % _EVERY

    def compare(self, package: str, found: Any, decision: Any) -> None:
        """Decide no more where the embedded engine said something else."""
        if _sorted(found) != _sorted(decision):
            self.distrust(package)

    def distrust(self, package: str) -> None:
        """Leave a package to the embedded engine for as long as these policies are in force."""
        self._deciding.pop(package, None)
        log.error(
            "the translation of %s decides otherwise than the engine, which decides alone from now on. "
            "This is a fault of Callgate's: please report it with the policies",
            package,
        )


def _sorted(decision: Any) -> bytes:
    return orjson.dumps(decision, option=orjson.OPT_SORT_KEYS)


def _must_be_text(input: Mapping[str, Any]) -> None:
    """Raise ``Unknown`` where the turn holds half a character, which no other engine takes either."""
    try:
        orjson.dumps([input.get(part) for part in ("call", "tool", "batch")])
    except TypeError:  # what orjson raises for all that it does not take
        raise Unknown from None
