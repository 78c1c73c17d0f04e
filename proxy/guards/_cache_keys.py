"""Under which keys a result is kept, and which tags stand for what it was read from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.guards.base import Situation, canonical
from proxy.model import OfferedTool, Principal
from proxy.tools import CacheRule, ToolSpec

_PARAMETER = re.compile(r"\{([^{}]+)\}")
_MAX_DEPTH = 16
_MAX_DIGESTS = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where the result of one read is kept, and what has to be unchanged for it to be valid."""

    key: str
    tags: tuple[str, ...]
    """Store keys of its tags' tokens."""


class Places:
    """Finds the place of a read; keeps the digests of descriptions, which live long."""

    def __init__(self) -> None:
        # Found by identity, which the kept reference keeps unique.
        self._digests: dict[int, tuple[ToolSpec, str]] = {}

    def find(
        self, spec: ToolSpec, rule: CacheRule, offered: OfferedTool | None, arguments: Any, who: Principal
    ) -> Place | None:
        """The place; None where the arguments have no one spelling, or do not say what a tag stands for."""
        schema = spec.parameters
        if schema is None and offered is not None:
            schema = offered.parameters
        full = with_defaults(arguments, schema)
        owner = _owner(rule, who)
        tags: list[str] = []
        for template in rule.tags:
            tag = _fill(template, full)
            if tag is None:
                return None
            tags += [_tag_key(owner[0], who, word) for word in dict.fromkeys((tag, _any(template)))]
        try:
            described = "" if spec.parameters is not None else digest(schema)
            name = [spec.name, full, owner, self._digest(spec), described]
            return Place(f"cache:result:{digest(name)}", tuple(dict.fromkeys(tags)))
        except TypeError:  # integers beyond 64 bits, text that is not Unicode
            return None

    def _digest(self, spec: ToolSpec) -> str:
        known = self._digests.get(id(spec))
        if known is None:
            if len(self._digests) >= _MAX_DIGESTS:
                self._digests.clear()
            text = spec.model_dump_json()
            known = self._digests[id(spec)] = spec, hashlib.sha256(text.encode()).hexdigest()
        return known[1]


def changed_tags(templates: Sequence[str], arguments: Any, who: Principal) -> list[str]:
    """Store keys of the tags that a write makes invalid, for those who share with ``who`` and for all.

    A template whose parameter is not among the arguments stands for whatever it could stand for.
    """
    words = dict.fromkeys(_fill(template, arguments) or _any(template) for template in templates)
    return [_tag_key(scope, who, word) for word in words for scope in ("tenant", "global")]


def pending_key(situation: Situation, call_id: str) -> str:
    """Where it is kept that a call was forwarded: only its principal, in its conversation, finds it."""
    text = "\0".join((situation.principal.key, situation.conversation_id, call_id))
    return f"cache:pending:{hashlib.sha256(text.encode(errors='replace')).hexdigest()}"


def digest(value: Any) -> str:
    """SHA-256 of the canonical spelling; raises ``TypeError`` where there is none."""
    return hashlib.sha256(canonical(value)).hexdigest()


def with_defaults(value: Any, schema: Any, depth: int = 0) -> Any:
    """The arguments with the schema's defaults where they say nothing, in nested objects as well."""
    if not isinstance(value, dict) or not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return value
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return value
    full = {name: with_defaults(item, properties.get(name), depth + 1) for name, item in value.items()}
    for name, described in properties.items():
        if name not in full and isinstance(described, dict) and "default" in described:
            full[name] = described["default"]
    return full


def _owner(rule: CacheRule, who: Principal) -> tuple[str, str]:
    """Who shares a result. Those who have no tenant share with nobody."""
    if rule.scope == "global":
        return "global", ""
    if rule.scope == "tenant" and who.tenant:
        return "tenant", who.tenant
    return "principal", who.key


def _tag_key(scope: str, who: Principal, tag: str) -> str:
    # One principal's write changes what others of the tenant read: a tag is the tenant's, not theirs.
    return (
        f"cache:tag:{digest(['global'] if scope == 'global' else ['tenant', who.tenant])[:16]}:{_hash(tag)}"
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _any(template: str) -> str:
    """What stands for every tag of a template: ``user:*`` for ``user:{user_id}``."""
    return _PARAMETER.sub("*", template)


def _fill(template: str, arguments: Any) -> str | None:
    """The tag, with arguments put in; None where one of them is not there."""
    parts = _PARAMETER.split(template)
    for place in range(1, len(parts), 2):
        word = _word(_look_up(arguments, parts[place]))
        if word is None:
            return None
        parts[place] = word
    return "".join(parts)


def _look_up(arguments: Any, path: str) -> Any:
    if isinstance(arguments, Mapping) and path in arguments:
        return arguments[path]
    for part in path.split("."):
        arguments = arguments.get(part) if isinstance(arguments, Mapping) else None
    return arguments


def _word(value: Any) -> str | None:
    """One spelling: the tag of 42, "42" and 42.0 is the same."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return canonical(value).decode()
    except TypeError:
        return str(value)
