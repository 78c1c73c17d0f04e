"""Put what the model found wrong into words: ``path: problem (cure)``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from proxy.config.settings import Settings
from proxy.config.values import ConfigFault, SecretRef

Location = tuple[int | str, ...]

_REFERENCE = "{env: NAME} or {file: PATH}"
_PLAIN = {
    "int": "should be a whole number (write it without quotes or a fraction)",
    "float": "should be a number (write it without quotes)",
    "bool": "should be true or false (write one of them without quotes)",
    "string": "should be text (put it in quotes)",
}


def worded(exc: ValidationError, content: Any, origins: Mapping[tuple[str, ...], str]) -> list[str]:
    """Every fault in ``content``; where an environment variable set the value, its name stands beside."""
    faults: list[str] = []
    errors = exc.errors(include_url=False, include_input=False)
    for error in errors:
        cause = error.get("ctx", {}).get("error")
        if isinstance(cause, ConfigFault):
            faults.extend(cause.faults)
        elif not (error["type"] == "too_short" and _counted_elsewhere(error["loc"], errors)):
            steps, value = _steps(error["loc"], content, error["type"] == "missing")
            place = _path(steps) + _origin(steps, origins)
            faults.append(f"{place}: {_problem(error, value)}")
    return faults


def _counted_elsewhere(location: Location, errors: list[ErrorDetails]) -> bool:
    """Whether a list is only too short because its items are wrong, which are faults of their own."""
    return any(len(error["loc"]) > len(location) == _shared(error["loc"], location) for error in errors)


def _shared(one: Location, other: Location) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _steps(location: Location, content: Any, missing: bool) -> tuple[Location, Any]:
    """The keys on the way to the fault, and what stands there, unless it is the last key that is ``missing``.

    Pydantic's location also holds names of the types it tried: those are left out.
    """
    steps: list[int | str] = []
    for index, part in enumerate(location):
        if isinstance(content, list | tuple) and isinstance(part, int) and part < len(content):
            steps.append(part)
            content = content[part]
        elif isinstance(content, Mapping) and part in content:
            steps.append(str(part))
            content = content[part]
        elif missing and index == len(location) - 1:
            steps.append(part)
    return tuple(steps), content


def _path(steps: Location) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _origin(steps: Location, origins: Mapping[tuple[str, ...], str]) -> str:
    """The variable that set the value at ``steps``, or what it lies in, or some of what lies in it."""
    path = tuple(map(str, steps))
    names = [name for origin, name in origins.items() if _shared(origin, path) == min(len(origin), len(path))]
    return f" (set by {names[-1]})" if names else ""


def _problem(error: ErrorDetails, value: Any) -> str:
    kind, location = error["type"], error["loc"]
    if kind == "extra_forbidden":
        return f"unknown key; {_nearest(str(location[-1]), _names(_models_at(location[:-1])))}"
    if kind == "missing":
        return f"is missing ({_meaning(location)})"
    if kind == "invalid_key":
        return "unknown key (the keys here are words)"
    if value is None:
        return "has no value (give it one, or leave the key out)"
    if kind == "union_tag_not_found":
        return f"has no kind (write kind: {_alternatives(_models_at(location))})"
    if kind == "union_tag_invalid":
        return f"unknown kind (write {_alternatives(_models_at(location))})"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    return _shape(kind, location) or error["msg"].replace("Input should", "should", 1)


def _shape(kind: str, location: Location) -> str | None:
    secret = [SecretRef] == _models_at(location)
    if "plain" in location and kind in ("literal_error", "string_type"):
        wanted = "'passthrough'" if kind == "literal_error" else "text"
        return f"should be {wanted}, or {_REFERENCE}"
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        return f"should be a mapping (write {_REFERENCE if secret else 'key: value below it'})"
    if kind in ("tuple_type", "list_type"):
        return "should be a list (write [...]; in an environment variable, the whole list as JSON)"
    if kind in ("too_short", "string_too_short"):
        return "is empty (write at least 1)"
    if kind == "path_type":
        return "should be a path (put it in quotes)"
    name, _, fault = kind.partition("_")
    return _PLAIN.get(name) if fault in ("type", "parsing", "from_float") else None


def _nearest(key: str, known: list[str]) -> str:
    if near := get_close_matches(key, known, 1, cutoff=0.5):
        return f"did you mean {near[0]!r}?"
    return f"known here: {', '.join(known)}"


def _meaning(location: Location) -> str:
    for model in _models_at(location[:-1]):
        for name, field in model.model_fields.items():
            if location[-1] in (name, field.alias) and field.description:
                return field.description.rstrip(".")
    return "give it a value"


def _alternatives(models: list[type[BaseModel]]) -> str:
    return ", ".join(kind for model in models if (kind := _kind(model)))


def _kind(model: type[BaseModel]) -> str:
    field = model.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field else ""


def _names(models: list[type[BaseModel]]) -> list[str]:
    return [field.alias or name for model in models for name, field in model.model_fields.items()]


def _models_at(location: Location) -> list[type[BaseModel]]:
    """The sections that may stand at a location of pydantic's."""
    models: list[type[BaseModel]] = [Settings]
    for part in location:
        tagged = [model for model in models if part in (_kind(model), "reference")]
        below = [model for parent in models for model in _below(parent, part)]
        if below or tagged:
            models = below or tagged
        elif not isinstance(part, int):
            models = []
    return models


def _below(model: type[BaseModel], part: int | str) -> Iterator[type[BaseModel]]:
    for name, field in model.model_fields.items():
        if part in (name, field.alias):
            yield from _models_in(field.annotation)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
