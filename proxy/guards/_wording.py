"""What is wrong with arguments, said so that the model can mend it: short, whatever it wrote."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jsonschema_rs import ValidationError
from jsonschema_rs import ValidationErrorKind as Kind

from proxy.guards._naming import MAX_QUOTED, Path, clip, pointer, quoted, subject, suggestion
from proxy.model import dumps

MAX_DETAILS = 8
_MAX_MESSAGE_BYTES = 240
_MAX_REASON_BYTES = 360
_MAX_DETAILS_BYTES = 900
_MAX_OPTIONS = 10

Problem = tuple[tuple[str | int, ...], str]
"""Where in the arguments, and what to say of it."""

_ARTICLES = {"array": "an array", "integer": "an integer", "object": "an object", "null": "null"}


def problems(errors: Iterable[ValidationError], schema: Any) -> list[Problem]:
    """The first few errors in a fixed order, each in one sentence."""
    found: dict[Problem, None] = {}
    for error in heapq.nsmallest(2 * MAX_DETAILS, errors, key=_order):
        found.update(dict.fromkeys(_problems(error, schema)))
    return sorted(found, key=lambda problem: (_steps(problem[0]), problem[1]))


def _order(error: ValidationError) -> tuple[list[str], list[str]]:
    return _steps(error.instance_path), [str(part) for part in error.schema_path]


def _steps(path: Path) -> list[str]:
    return [part if isinstance(part, str) else f"{part:09}" for part in path]


def refusal(found: Sequence[Problem]) -> tuple[str, list[Mapping[str, str]]]:
    """The reason in a few sentences, and the details with RFC 6901 pointers; both bounded in bytes."""
    messages = list(dict.fromkeys(clip(message, _MAX_MESSAGE_BYTES) for _, message in found))
    reason = ""
    for message in messages:
        sentence = message if message.endswith("?") else f"{message}."
        longer = f"{reason} {sentence}" if reason else sentence
        if reason and len(dumps(longer)) > _MAX_REASON_BYTES:
            break
        reason = longer
    details: list[Mapping[str, str]] = []
    room = _MAX_DETAILS_BYTES
    for path, message in found[:MAX_DETAILS]:
        detail = {"path": pointer(path), "message": clip(message, _MAX_MESSAGE_BYTES)}
        room -= len(dumps(detail))
        if room < 0:
            break
        details.append(detail)
    return reason, details


def unknown(path: Path, name: str, known: Iterable[str] = ()) -> Problem:
    """That there is no such parameter."""
    inside = f" in {subject(path).removeprefix('Parameter ')}" if path else ""
    return (*path, name), f"Unknown parameter {quoted(name)}{inside}{suggestion(name, known)}"


def _problems(error: ValidationError, schema: Any = None) -> list[Problem]:
    path, kind = tuple(error.instance_path), error.kind
    match kind:
        case Kind.AdditionalProperties() | Kind.UnevaluatedProperties():
            names: list[str] = sorted(kind.unexpected)[:MAX_DETAILS]
            return [unknown(path, name, _known(error, schema)) for name in names]
        case Kind.Required():
            needed = (*path, kind.property)
            because = "" if error.schema_path[-1:] == ["required"] else " beside the others that are given"
            return [(needed, f"{subject(needed)} is required{because}")]
    about = subject(path)
    if (word := _WORDS.get(type(kind))) is not None:
        return [(path, f"{about} {word(error)}")]
    return [(path, f'{about} is not valid: see "{kind.name}" in the schema')]


def _known(error: ValidationError, schema: Any) -> list[str]:
    for part in error.schema_path[:-1]:
        inside = isinstance(schema, dict) or (isinstance(schema, list) and isinstance(part, int))
        try:
            schema = schema[part] if inside else None
        except (KeyError, IndexError):
            return []
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return list(properties) if isinstance(properties, dict) else []


def _type(error: ValidationError) -> str:
    return f"must be {_any_of(error.kind.value)}, not {_kind_of(error.instance)}"


def _any_of(types: Iterable[str]) -> str:
    return " or ".join(_a(name) for name in types)


def _a(name: str) -> str:
    return _ARTICLES.get(name, f"a {name}")


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float):
        return "a number with a fraction"
    return _a({bool: "boolean", str: "string", dict: "object", list: "array"}.get(type(value), "number"))


def _enum(error: ValidationError) -> str:
    options: list[Any] = error.kind.value
    shown = ", ".join(quoted(option) for option in options[:_MAX_OPTIONS])
    if len(options) <= _MAX_OPTIONS:
        return f"must be one of {shown}"
    texts = (option for option in options if isinstance(option, str))
    hint = suggestion(error.instance, texts) if isinstance(error.instance, str) else ""
    return f"must be one of {len(options)} values{hint}" if hint else f"must be one of {shown}, …"


def _contains(error: ValidationError) -> str:
    if error.schema_path[-1:] == ["maxContains"]:
        return "has too many items of the kind that the schema limits"
    return "does not have enough items of the kind that the schema asks for"


def _no_value(error: ValidationError) -> str:
    if error.schema_path[-1:] == ["additionalProperties"]:
        return "must be empty"
    return "is not allowed"


def _alternatives(error: ValidationError) -> str:
    """The types where the alternatives differ by type alone, else what the closest one lacks."""
    branches: list[list[ValidationError]] = error.kind.value
    here = list(error.instance_path)
    firsts = [branch[0] for branch in branches if branch]
    if firsts and all(isinstance(e.kind, Kind.Type) and list(e.instance_path) == here for e in firsts):
        types = dict.fromkeys(name for e in firsts for name in e.kind.value)
        return f"must be {_any_of(types)}, not {_kind_of(error.instance)}"
    near = [b for b in branches if b and not any(_is_elsewhere(e, here) for e in b)]
    closest = min(near, key=len, default=None)
    if closest is None or isinstance(closest[0].kind, Kind.AnyOf | Kind.OneOfNotValid):
        return "matches none of the forms that are allowed"
    return f"matches none of the forms that are allowed; the closest one says: {_problems(closest[0])[0][1]}"


def _is_elsewhere(error: ValidationError, here: Path) -> bool:
    """Whether the value was meant for another branch: its type, or a constant in it, says so."""
    is_here = list(error.instance_path) == list(here)
    return isinstance(error.kind, Kind.Constant) or (is_here and isinstance(error.kind, Kind.Type))


def _limit(text: str, noun: str = "") -> Callable[[ValidationError], str]:
    def word(error: ValidationError) -> str:
        limit = error.kind.value
        plain = int(limit) if isinstance(limit, float) and limit.is_integer() and abs(limit) < 1e15 else limit
        shown = str(plain)[:MAX_QUOTED]
        if not noun:
            return f"{text} {shown}"
        return f"{text} {shown} {noun if plain == 1 else _plural(noun)}"

    return word


def _plural(noun: str) -> str:
    return "properties" if noun == "property" else f"{noun}s"


def _says(text: str) -> Callable[[ValidationError], str]:
    return lambda error: text


def _quotes(text: str) -> Callable[[ValidationError], str]:
    return lambda error: f"{text} {quoted(error.kind.value)}"


_UNREADABLE = _says("could not be checked against its pattern in bounded time")

_WORDS: dict[type, Callable[[ValidationError], str]] = {
    Kind.Type: _type,
    Kind.Enum: _enum,
    Kind.Constant: _quotes("must be"),
    Kind.Pattern: _quotes("must match the pattern"),
    Kind.Format: lambda error: f"is not a valid {str(error.kind.value)[:MAX_QUOTED]}",
    Kind.Maximum: _limit("exceeds maximum of"),
    Kind.Minimum: _limit("is below minimum of"),
    Kind.ExclusiveMaximum: _limit("must be less than"),
    Kind.ExclusiveMinimum: _limit("must be greater than"),
    Kind.MultipleOf: _limit("must be a multiple of"),
    Kind.MinLength: _limit("must have at least", "character"),
    Kind.MaxLength: _limit("must have at most", "character"),
    Kind.MinItems: _limit("must have at least", "item"),
    Kind.MaxItems: _limit("must have at most", "item"),
    Kind.AdditionalItems: _limit("must have at most", "item"),
    Kind.MinProperties: _limit("must have at least", "property"),
    Kind.MaxProperties: _limit("must have at most", "property"),
    Kind.UniqueItems: _says("must not have the same item twice"),
    Kind.UnevaluatedItems: _says("has more items than are allowed"),
    Kind.Contains: _contains,
    Kind.PropertyNames: lambda error: f"has a name that is not allowed: {quoted(error.kind.value.instance)}",
    Kind.FalseSchema: _no_value,
    Kind.AnyOf: _alternatives,
    Kind.OneOfNotValid: _alternatives,
    Kind.OneOfMultipleValid: _says("matches more than one of the forms of which exactly one is allowed"),
    Kind.Not: _says("has a value that is not allowed"),
    Kind.ContentEncoding: lambda error: f"is not valid {quoted(error.kind.value)}",
    Kind.ContentMediaType: lambda error: f"is not valid {quoted(error.kind.value)}",
    Kind.BacktrackLimitExceeded: _UNREADABLE,
    Kind.RegexEngineFailure: _UNREADABLE,
}
