"""Policies made ready for the embedded engine: checked, compiled, and each decision asked for once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import regorus

from proxy.engines.rego.bounds import Bound, bounds
from proxy.engines.rego.checking import Rule, check, too_deep
from proxy.engines.rego.reads import reads
from proxy.engines.rego.undefined import undefined
from proxy.engines.sources.policyset import Module, PolicyFault, PolicySet
from proxy.engines.translated.decisions import Translated
from proxy.engines.translated.program import NOTHING, Translation, translate
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


def compiled(policy_set: PolicySet, *, only_bounded: bool = False) -> Compiled:
    """Compile policies, check them, and ask each decision once; raises ``PolicyFault``.

    With ``only_bounded`` those decisions are not asked of which it is not known that they end soon.
    """
    # Raised here, where no engine is in sight: a traceback may be freed on another thread, an engine may not.
    attempt = _attempt(policy_set, only_bounded)
    if isinstance(attempt, Compiled):
        return attempt
    raise PolicyFault(attempt)


@dataclass(frozen=True, slots=True)
class _Examined:
    """What was found in policies without evaluating them."""

    packages: frozenset[str]
    rules: tuple[Rule, ...]
    reads: Mapping[str, frozenset[str] | None]


def _attempt(policy_set: PolicySet, only_bounded: bool) -> Compiled | list[str]:
    found = _examined(policy_set)
    if not isinstance(found, _Examined):
        return list(found)
    engine = regorus.Engine()
    for module in policy_set.modules:
        engine.add_policy(module.path, module.text)
    packages = found.packages
    if only_bounded:
        limits, smallest = bounds_of(policy_set), dumps(MINIMAL_INPUT).decode()
        packages = frozenset(name for name in packages if limits[name].holds(smallest, MINIMAL_INPUT))
    if faults := _data_faults(engine, policy_set) or _proof_faults(engine, packages):
        return faults
    return Compiled(engine, found.packages, found.rules, policy_set.revision, found.reads)


# The same policies are often compiled again: by each worker of a test, by each engine of a comparison.
@lru_cache(maxsize=4)
def _examined(policy_set: PolicySet) -> _Examined | tuple[str, ...]:
    if faults := [fault for module in policy_set.modules if (fault := too_deep(module))]:
        return tuple(faults)
    engine = regorus.Engine()
    if faults := [fault for module in policy_set.modules if (fault := _added(engine, module))]:
        return tuple(faults)
    try:
        trees = orjson.loads(engine.get_ast_as_json())
        data = orjson.loads(policy_set.data_json)
        checked = check(trees, data, _builtins(), policy_set.modules)
        checked.faults.extend(undefined(trees, data, MINIMAL_INPUT))
    except (ValueError, RecursionError):
        return ("the policies: an expression nests too deeply to be checked: name its parts",)
    if checked.faults:
        return tuple(sorted(set(checked.faults)))
    read = {package: reads(trees, package) for package in checked.packages}
    return _Examined(checked.packages, tuple(checked.rules), read)


@lru_cache(maxsize=4)
def bounds_of(policy_set: PolicySet) -> Mapping[str, Bound]:
    """By package, up to where its decision is known to end soon; the policies must have been checked."""
    found, engine = _examined(policy_set), regorus.Engine()
    assert isinstance(found, _Examined)
    for module in policy_set.modules:
        engine.add_policy(module.path, module.text)
    trees = orjson.loads(engine.get_ast_as_json())
    return bounds(trees, orjson.loads(policy_set.data_json), found.packages)


# The data are held once more for it, as objects.
_MAX_TRANSLATED_DATA_BYTES = 8 << 20


@lru_cache(maxsize=4)
def translation_of(policy_set: PolicySet) -> Translation:
    """The decisions in Python, as far as that can be; the policies must have been checked."""
    if len(policy_set.data_json) > _MAX_TRANSLATED_DATA_BYTES:
        return NOTHING
    found, engine = _examined(policy_set), regorus.Engine()
    assert isinstance(found, _Examined)
    for module in policy_set.modules:
        engine.add_policy(module.path, module.text)
    asked = frozenset(package for package in found.packages if package.startswith("callgate."))
    return translate(orjson.loads(engine.get_ast_as_json()), orjson.loads(policy_set.data_json), asked)


def translated(policy_set: PolicySet) -> Translated:
    """The policies in Python, ready to decide."""
    ready = Translated(translation_of(policy_set), orjson.loads(policy_set.data_json))
    for _ in ready.steps():
        pass
    return ready


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


# What one step of putting an engine together may bring: about as many microseconds as a request may wait.
_PIECE_BYTES = 1 << 16
# Between two of them. A request takes several turns of the loop, and must not meet a step in each.
_PAUSE_S = 0.01
# About 0.1 ms each.
_FUNCTIONS_A_STEP = 16


async def assembled(policy_set: PolicySet, translation: Translation) -> tuple[Any, Translated] | list[str]:
    """An engine with policies that are known to serve, put together in steps; or what is wrong."""
    data, pieces = await asyncio.to_thread(_cut, policy_set)
    engine = regorus.Engine()
    for module in policy_set.modules:
        if fault := _added(engine, module):
            return [fault]
        await asyncio.sleep(_PAUSE_S)
    for piece in pieces:
        try:
            engine.add_data_json(piece)
        except RuntimeError as exc:
            return [f"the policy data: {worded(exc)}"]
        await asyncio.sleep(_PAUSE_S)
    ready = Translated(translation, data if translation.functions else {})
    for number, _ in enumerate(ready.steps()):
        if not number % _FUNCTIONS_A_STEP:
            await asyncio.sleep(_PAUSE_S)
    # With no decision to ask for, this is the last part of compiling.
    return _proof_faults(engine, frozenset()) or (engine, ready)


def _cut(policy_set: PolicySet) -> tuple[dict[str, Any], list[str]]:
    data = orjson.loads(policy_set.data_json)
    return data, list(_pieces(data))


def _pieces(data: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[str]:
    """Data in parts of a bounded size that come to the same when they are merged; a list stays whole."""
    some: dict[str, Any] = {}
    size = 0
    for name, value in data.items():
        length = len(orjson.dumps(value))
        if length > _PIECE_BYTES and isinstance(value, dict):
            yield from _pieces(value, (*at, name))
            continue
        if size + length > _PIECE_BYTES and some:
            yield _placed(some, at)
            some, size = {}, 0
        some[name] = value
        size += length + len(name)
    if some or not at:
        yield _placed(some, at)


def _placed(value: Any, at: tuple[str, ...]) -> str:
    for name in reversed(at):
        value = {name: value}
    return orjson.dumps(value).decode()
