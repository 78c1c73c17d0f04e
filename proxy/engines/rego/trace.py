"""Which rules made a decision, and where the others stopped: found out by running marked copies of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import regorus

from proxy.engines.evaluating.compiling import compiled, evaluate
from proxy.engines.rego.text import Body, Mark, WrittenRule, marked_all
from proxy.engines.regorus import encoded
from proxy.engines.sources.policyset import PolicySet
from proxy.ports import Unavailable

_SIGN = "callgate-fired"
_MARK = re.compile(rf"^.+?:\d+: {_SIGN} (\d+) ?(.*)\Z", re.DOTALL)
_MAX_CHARS = 160


@dataclass(frozen=True, slots=True)
class Step:
    """A rule that applied, or that was tried and did not."""

    rule: str
    """Package and name."""
    place: str
    """File and line: of the rule, or of the statement at which it stopped."""
    text: str
    """The rule's head, or that statement."""
    values: tuple[str, ...] = ()
    """What it added to a set."""
    times: int = 1


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision with its grounds."""

    decision: Any
    """None where it is undefined."""
    fired: tuple[Step, ...]
    stopped: tuple[Step, ...]
    printed: tuple[str, ...] = ()
    """What the policies themselves printed."""


class Explainer:
    """Policies that explain their decisions; slower than the engine that serves."""

    def __init__(self, policy_set: PolicySet) -> None:
        """Compile and prove; raises ``PolicyFault`` naming every fault with its file and line."""
        ready = compiled(policy_set)
        self.packages, self._served = ready.packages, ready.engine
        trees = orjson.loads(ready.engine.get_ast_as_json())
        self._texts = {tree["source"]["file"]: tree["source"]["contents"].encode() for tree in trees}
        self._bodies: list[tuple[WrittenRule, Body]] = []
        self._defaults: list[WrittenRule] = []
        self._engine = regorus.Engine()
        self._engine.set_gather_prints(True)
        for file, text in marked_all(trees, self._marks):
            self._engine.add_policy(file, text)
        self._engine.add_data_json(policy_set.data_json.decode())
        self._engine.set_enable_coverage(True)

    def _marks(self, rule: WrittenRule) -> list[Mark]:
        if rule.kind == "default":
            self._defaults.append(rule)
        key = f", {rule.key}" if rule.key is not None else ""
        first = len(self._bodies)
        self._bodies += [(rule, body) for body in rule.bodies]
        return [Mark(body, f'"{_SIGN} {first + at}"{key}') for at, body in enumerate(rule.bodies)]

    def explain(self, package: str, input: Mapping[str, Any]) -> Explained:
        """The decision of a package with its grounds; raises ``Unavailable`` where a rule fails."""
        input_json = encoded(input)
        decision = evaluate(self._served, package, input_json)
        self._engine.take_prints()
        self._engine.clear_coverage_data()
        again = evaluate(self._engine, package, input_json)
        if _read(decision) != _read(again):
            raise Unavailable("the rules cannot be told apart: with marks in them, they decide otherwise")
        said, printed = _said(self._engine.take_prints())
        stopped = list(self._stopped(said))
        return Explained(_read(decision), self._fired(said, stopped), tuple(stopped), printed)

    def _fired(self, said: Mapping[int, Sequence[str]], stopped: Sequence[Step]) -> tuple[Step, ...]:
        steps = []
        for number, values in said.items():
            rule, body = self._bodies[number]
            shown = tuple(dict.fromkeys(value for value in values if value))
            place = f"{rule.file}:{body.line}"
            steps.append(Step(rule.path, place, _short(body.head), shown, len(values)))
        applied, tried = {step.rule for step in steps}, {step.rule for step in stopped}
        for rule in self._defaults:
            if rule.path in tried - applied:
                steps.append(Step(rule.path, rule.place, f"default {rule.name[-1]}"))
        return tuple(sorted(steps, key=_in_order))

    def _stopped(self, said: Mapping[int, Sequence[str]]) -> Iterator[Step]:
        """The rules that were tried in vain; not functions, which are called more than once."""
        covered = self._covered()
        for number, (rule, body) in enumerate(self._bodies):
            tried = [one for one in body.statements if one.line in covered.get(rule.file, ())]
            if tried and number not in said and rule.kind != "function":
                last = tried[-1]
                text = self._texts[rule.file][last.start : last.end].decode()
                yield Step(rule.path, f"{rule.file}:{last.line}", _short(text))

    def _covered(self) -> dict[str, set[int]]:
        report = orjson.loads(self._engine.get_coverage_report_as_json())
        return {file["path"]: set(file["covered"]) for file in report["files"]}


def _said(prints: Sequence[str]) -> tuple[dict[int, list[str]], tuple[str, ...]]:
    """By the number of the mark, what was printed at it; and what the policies themselves printed."""
    said: dict[int, list[str]] = {}
    printed = []
    for line in prints:
        if found := _MARK.search(line):
            said.setdefault(int(found[1]), []).append(found[2])
        else:
            printed.append(line)
    return said, tuple(printed)


def _read(decision: str | None) -> Any:
    return None if decision is None else orjson.loads(decision)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARS else f"{line[: _MAX_CHARS - 1]}…"


def _in_order(step: Step) -> tuple[str, int]:
    file, _, line = step.place.rpartition(":")
    return file, int(line)
