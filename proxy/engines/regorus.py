"""The embedded Rego engine: regorus, in the process, compiled once and swapped whole.

Not safe across threads: build it, replace its policies and ask it on one thread, the event loop's. An
evaluation cannot be interrupted: what a policy may cost is the policy's to bound.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import regorus

from proxy.engines.policyset import Module, PolicyFault, PolicySet
from proxy.engines.regocheck import Rule, check, too_deep
from proxy.engines.regoreads import reads
from proxy.model import dumps
from proxy.ports import Unavailable

UNDEFINED = '"<undefined>"'

# The least that a decision is ever asked about: policies are proven on it before they serve.
MINIMAL_INPUT: Mapping[str, Any] = {
    "principal": {"id": "", "roles": [], "tenant": "", "claims": {}},
    "conversation": {"id": "", "query": "", "turn": 0},
    "model": "",
    "protocol": "chat",
    "batch": [{"id": "", "name": "", "arguments": {}}],
    "history": {"calls": [], "labels": [], "counts": {}},
    "approval": None,
    "time": "1970-01-01T00:00:00Z",
    "call": {"id": "", "name": "", "arguments": {}},
    "tool": {"registered": False, "name": "", "effect": "write", "labels": [], "references": {}, "tags": []},
    "tools": [],
    "hosted": [],
    "hosted_tools": [],
    "result": {"call_id": "", "tool": "", "content": "", "truncated": False},
}

_PLACE = re.compile(r"^--> (.+?):(\d+):\d+$", re.MULTILINE)
# Values that the engine quotes may be a caller's.
_QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"")
_ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Compiled:
    """Policies that were proven to serve."""

    engine: Any
    packages: frozenset[str]
    rules: tuple[Rule, ...]
    revision: str
    reads: Mapping[str, frozenset[str] | None]
    """By package, the members of ``input`` that its decision may depend on."""


class RegorusEngine:
    """The ``PolicyEngine`` port over regorus."""

    def __init__(self, policy_set: PolicySet) -> None:
        """Compile and prove; raises ``PolicyFault`` naming every fault with its file and line."""
        self._compiled = compiled(policy_set)

    def replace(self, policy_set: PolicySet) -> None:
        """Put other policies in force, whole.

        Where they cannot serve, raises ``PolicyFault`` and keeps those that are in force.
        """
        self._compiled = compiled(policy_set)

    @property
    def revision(self) -> str:
        return self._compiled.revision

    def defines(self, package: str) -> bool:
        return package in self._compiled.packages

    def reads(self, package: str) -> frozenset[str] | None:
        """The members of ``input`` that the decision may depend on; None where that cannot be told."""
        return self._compiled.reads.get(package, frozenset())

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """The value of ``data.<package>.decision``, or None where it is undefined.

        Raises ``Unavailable`` when a rule fails on this input or the input cannot be handed over; the
        message names the rule's place, and quotes neither policy nor input.
        """
        in_force = self._compiled
        if package not in in_force.packages:
            return None
        # One engine holds one input: between setting it and asking, nothing may await.
        decision = evaluate(in_force.engine, package, encoded(input))
        return None if decision is None else orjson.loads(decision)


def encoded(input: Mapping[str, Any]) -> str:
    """An input document as the engine takes it; raises ``Unavailable`` where it cannot be written."""
    # As text, never as objects: a lone surrogate or deep nesting among objects crashes the process.
    try:
        return dumps(input).decode()
    except UnicodeError:
        pass
    except (TypeError, ValueError, RecursionError):
        raise Unavailable("the policy input cannot be written as JSON") from None
    return _without_surrogates(input)


def _without_surrogates(input: Mapping[str, Any]) -> str:
    """Half a character in the history must not stop every later call; in the call itself it must."""
    try:
        dumps([input.get(part) for part in ("call", "tool", "batch")])
    except UnicodeError:
        raise Unavailable("the call holds text that is not valid Unicode") from None
    return json.dumps(input, ensure_ascii=False).encode("utf-8", "replace").decode()


def evaluate(engine: Any, package: str, input_json: str) -> str | None:
    """The decision of a package as JSON, or None where it is undefined; raises ``Unavailable``."""
    try:
        engine.set_input_json(input_json)
        result: str = engine.eval_rule_as_json(f"data.{package}.decision")
    except Exception as exc:  # noqa: BLE001 -- the engine raises bare RuntimeErrors for all that can go wrong
        raise Unavailable(f"policy {package} cannot decide: {_QUOTED.sub('...', worded(exc))}") from None
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":  # what a Rust panic becomes; not an Exception
            raise
        raise Unavailable(f"policy {package} cannot decide: the engine failed") from None
    return None if result == UNDEFINED else result


def worded(exc: Exception) -> str:
    """Place and cause of what the engine complains of, without the source and the stack that it adds."""
    text = str(exc).split("\n\nStack backtrace")[0]
    place, error = _PLACE.search(text), _ERROR.search(text)
    cause = error[1] if error else text.strip().partition("\n")[0]
    return f"{place[1]}:{place[2]}: {cause}" if place else cause


def compiled(policy_set: PolicySet) -> Compiled:
    """Compile policies, check them, and ask each decision once; raises ``PolicyFault``."""
    # Raised here, where no engine is in sight: a traceback may be freed on another thread, an engine may not.
    attempt = _attempt(policy_set)
    if isinstance(attempt, Compiled):
        return attempt
    raise PolicyFault(attempt)


def _attempt(policy_set: PolicySet) -> Compiled | list[str]:
    modules = policy_set.modules
    if faults := [fault for module in modules if (fault := too_deep(module))]:
        return faults
    engine = regorus.Engine()
    if faults := [fault for module in modules if (fault := _added(engine, module))]:
        return faults
    try:
        trees = orjson.loads(engine.get_ast_as_json())
        checked = check(trees, orjson.loads(policy_set.data_json), _builtins(), modules)
    except (ValueError, RecursionError):
        return ["the policies: an expression nests too deeply to be checked: name its parts"]
    if checked.faults:
        return sorted(set(checked.faults))
    if faults := _data_faults(engine, policy_set) or _proof_faults(engine, checked.packages):
        return faults
    read = {package: reads(trees, package) for package in checked.packages}
    return Compiled(engine, checked.packages, tuple(checked.rules), policy_set.revision, read)


def _added(engine: Any, module: Module) -> str | None:
    try:
        engine.add_policy(module.path, module.text)
    except RuntimeError as exc:
        return worded(exc)
    return None


def _builtins() -> frozenset[str]:
    (answer,) = regorus.Engine().eval_query("opa.runtime()")["result"]
    return frozenset((*answer["expressions"][0]["value"]["builtins"], "print"))


def _data_faults(engine: Any, policy_set: PolicySet) -> list[str]:
    try:
        engine.add_data_json(policy_set.data_json.decode())
    except RuntimeError as exc:
        return [f"the policy data: {worded(exc)}"]
    return []


def _proof_faults(engine: Any, packages: frozenset[str]) -> list[str]:
    """Evaluate everything once: some faults are the engine's to find, and only then."""
    input_json = dumps(MINIMAL_INPUT).decode()
    try:
        engine.set_input_json(input_json)
        engine.eval_query("true")
    except RuntimeError as exc:
        return [worded(exc)]
    return [fault for package in sorted(packages) if (fault := _proof_fault(engine, package, input_json))]


def _proof_fault(engine: Any, package: str, input_json: str) -> str | None:
    if package.startswith("callgate."):
        try:
            evaluate(engine, package, input_json)
        except Unavailable as exc:
            return str(exc)
    return None
