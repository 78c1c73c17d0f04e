"""Compiled JSON Schemas: each distinct one once, within bounds of time and memory, never over a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jsonschema_rs
from cachetools import LRUCache
from jsonschema_rs import EmailOptions

from proxy.guards._cost import TooExpensive, survey
from proxy.guards._graph import Graph, Node, Unclear
from proxy.guards._naming import clip
from proxy.guards._patterns import Patterns, Unbounded
from proxy.guards._plan import Plan
from proxy.model import Fault, dumps, loads

MAX_SCHEMA_BYTES = 256 * 1024
"""How long a schema may be, as compact JSON."""
MAX_CACHE_BYTES = 128 * 1024 * 1024
"""How much memory all compiled schemas may take together, as estimated."""

_MEMORY_PER_BYTE = 60  # compiled, for each byte of schema; measured at most 57
_EXPLAIN_UNITS = 5_000  # of work: an error costs some microseconds
_EXPLAIN_BYTES = 4 * 1024 * 1024  # an error carries a copy of the value that it is about
_EMAIL = EmailOptions(allow_display_text=False)  # RFC 5321 mailbox: no "Name <address>"

# With one of these, more than the object's own `properties` may name its parameters.
_OPENING = frozenset(
    {
        *("additionalProperties", "unevaluatedProperties", "patternProperties"),
        *("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf"),
        *("if", "then", "else", "dependentSchemas", "dependencies"),
    }
)


class SchemaRefused(ValueError):
    """The schema cannot be used; the message says why, to go on after 'The tool's schema'."""


class TooLarge(Exception):
    """Checking these arguments could take too long."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One schema, ready to judge arguments."""

    schema: Any
    plan: Plan
    parameters: frozenset[str] | None
    """The only parameters there are, where the schema lists some and leaves no room for others."""
    alternatives: bool
    """Whether a subschema has ``anyOf`` or ``oneOf``, whose errors carry those of every branch."""
    memory: int
    validator: jsonschema_rs.Validator

    def accepts(self, arguments: dict[str, Any], length: int) -> bool:
        """Whether the arguments, at most ``length`` bytes of JSON, are valid; raises ``TooLarge``."""
        if length > self.plan.free_bytes and self.plan.toll(arguments) is None:
            raise TooLarge
        return self.validator.is_valid(arguments)

    def errors(self, arguments: dict[str, Any], length: int) -> list[jsonschema_rs.ValidationError]:
        """What is wrong with invalid arguments: all of it, the first, or (at great size) nothing."""
        toll = self.plan.toll(arguments) if length <= _EXPLAIN_BYTES else None
        try:
            if toll and toll.units <= _EXPLAIN_UNITS and toll.heaviest * length <= _EXPLAIN_BYTES:
                return list(self.validator.iter_errors(arguments))
            if not self.alternatives:
                self.validator.validate(arguments)
        except jsonschema_rs.ValidationError as exc:
            return [exc]
        except ValueError:
            pass  # nested more deeply than the errors' own copy of it may be
        return []


class Validators:
    """A bounded cache of compiled schemas, by their JSON."""

    def __init__(self, max_schemas: int, max_bytes: int = MAX_CACHE_BYTES) -> None:
        # One bound serves both: whatever is kept counts as at least its share of the memory.
        share = max(1, max_bytes // max_schemas)
        self._kept: LRUCache[bytes, Compiled | SchemaRefused] = LRUCache(
            max_bytes, getsizeof=lambda kept: max(share, _memory(kept))
        )

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, schema: Any) -> Compiled:
        """The schema's validator, compiled if need be; raises ``SchemaRefused``."""
        try:
            key = dumps(schema)
        except (TypeError, ValueError, RecursionError):
            raise SchemaRefused("is not valid JSON Schema: it is not JSON") from None
        try:
            kept = self._kept[key]
        except KeyError:
            kept = self._compile(key)
        if isinstance(kept, SchemaRefused):
            raise SchemaRefused(str(kept))
        return kept

    def _compile(self, key: bytes) -> Compiled | SchemaRefused:
        if len(key) > MAX_SCHEMA_BYTES:
            return SchemaRefused(f"cannot be used: it is longer than {MAX_SCHEMA_BYTES} bytes")
        kept: Compiled | SchemaRefused
        try:
            kept = _compile(key)
        except SchemaRefused as exc:
            kept = exc.with_traceback(None)
        if _memory(kept) <= self._kept.maxsize:
            self._kept[key] = kept
        return kept


def _memory(kept: Compiled | SchemaRefused) -> int:
    return kept.memory if isinstance(kept, Compiled) else MAX_SCHEMA_BYTES


def _compile(key: bytes) -> Compiled:
    # What is compiled is what the key says, not the object that it was written from.
    try:
        schema = loads(key)
    except Fault as exc:
        raise SchemaRefused(f"is not valid JSON Schema: it is {exc}") from None
    if not isinstance(schema, dict | bool):
        raise SchemaRefused("is not valid JSON Schema: a schema is an object, true or false")
    root: Node = schema if isinstance(schema, dict) else {}
    try:
        graph = Graph(root)
        nodes = graph.reachable(root)
        patterns = Patterns.weigh(p for node in nodes if isinstance(p := node.get("pattern"), str))
        patterns.refuse_inverted_look_around(nodes)
        plan = survey(root, graph, patterns)
        validator = _validator(schema, patterns)
    except (Unclear, Unbounded, TooExpensive) as exc:
        raise SchemaRefused(f"cannot be used: {exc}") from None
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        message = clip(str(getattr(exc, "message", exc)), 200)
        raise SchemaRefused(f"is not valid JSON Schema: {message}") from None
    alternatives = any("anyOf" in node or "oneOf" in node for node in nodes)
    memory = len(key) * _MEMORY_PER_BYTE + patterns.size
    return Compiled(schema, plan, _parameters(root), alternatives, memory, validator)


def _validator(schema: Any, patterns: Patterns) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        schema,
        validate_formats=True,
        offline=True,
        pattern_options=patterns.options(),
        email_options=_EMAIL,
    )


def _parameters(schema: Node) -> frozenset[str] | None:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties or _OPENING & schema.keys():
        return None
    return frozenset(properties)
