"""What is wrong with one tool."""

from __future__ import annotations

import re
from typing import Any

import jsonschema_rs

from proxy.guards._validators import Compiled, SchemaRefused, TooLarge, Validators
from proxy.model import dumps
from proxy.schemas.definitions import Definition, escaped
from proxy.schemas.importing import guessed_effect
from proxy.schemas.lint import parameters, wording
from proxy.schemas.lint.findings import Finding, Graded, Notes, sorted_by_weight
from proxy.schemas.lint.walking import walk

MAX_NAME_CHARS = 64
_NAME = re.compile(r"[a-zA-Z0-9_-]+")  # https://platform.openai.com/docs/guides/function-calling
_SAYS_READ = re.compile(r"(?i)\bread[- ]?only\b|\bchanges nothing\b|\bdoes not (?:change|modify)\b")
_SAYS_FINAL = re.compile(
    r"(?i)\bundo|\bundone\b|\birreversibl|\bpermanent|\bfor good\b|\bforever\b|\bdestructive\b"
)


def lint_tool(definition: Definition) -> Graded:
    """All that is found of one tool, the worst first. Whatever the definition holds, there is an answer."""
    notes = Notes(definition)
    _name(notes)
    wording.tool_description(notes)
    wording.hidden(notes)
    _effect(notes)
    compiled = _schema(notes)
    if compiled is not None and isinstance(definition.tool.parameters, dict):
        _parameters(notes, definition.tool.parameters)
        _examples(notes, definition.tool.parameters, compiled)
    _spec(notes)
    place = definition.place.at("")
    return Graded(definition.name, place, tuple(sorted_by_weight(notes.findings)))


def suspicions(definition: Definition) -> tuple[Finding, ...]:
    """What in a definition reads like tool poisoning: to see before it is trusted."""
    notes = Notes(definition)
    wording.hidden(notes)
    return tuple(notes.findings)


def _name(notes: Notes) -> None:
    name = notes.definition.name
    if not _NAME.fullmatch(name):
        fix = re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:MAX_NAME_CHARS] or "a_name"
        dotted = all(_NAME.fullmatch(part) for part in name.split("."))
        message = "Chat Completions and Messages take letters, digits, _ and - in a name only."
        notes.add("invalid-name", "warning" if dotted else "error", "/name", message, {"name": fix})
    if len(name) > MAX_NAME_CHARS:
        message = f"The name has {len(name)} characters; APIs take {MAX_NAME_CHARS}."
        notes.add("long-name", "error", "/name", message, {"name": name[:MAX_NAME_CHARS]})


def _effect(notes: Notes) -> None:
    definition, text = notes.definition, notes.definition.tool.description
    guess = guessed_effect(definition.name)
    effect = definition.effect if definition.effect is not None and not definition.effect_from else None
    if definition.shape == "registry" and effect is None:
        message = (
            f"It does not say what the tool does to the world; without it, it is taken to write. {guess}?"
        )
        notes.add("missing-effect", "warning", "", message, {"effect": guess})
    elif effect is not None and "destructive" in (effect, guess) and effect != guess != "write":
        message = f"It says effect: {effect}, and its name sounds like {guess}."
        notes.add("effect-mismatch", "warning", "/effect", message, {"effect": guess})
    said = effect or guess
    if not text:
        return
    if said == "read" and not _SAYS_READ.search(text):
        message = (
            "The description does not say that it only reads: a model may hesitate, or trust it too much."
        )
        notes.add("unstated-effect", "hint", "/description", message, {"description": f"READ-ONLY. {text}"})
    if said == "destructive" and not _SAYS_FINAL.search(text):
        message = "The description does not say that it cannot be undone."
        fix = {"description": f"{text.rstrip()} This cannot be undone.".strip()}
        notes.add("unstated-effect", "warning", "/description", message, fix)


def _schema(notes: Notes) -> Compiled | None:
    """The schema as the guard would use it; None where there is none, or it cannot."""
    definition = notes.definition
    schema, at = definition.tool.parameters, f"/{definition.schema_key}"
    if definition.tool.kind != "function":
        return None
    if schema is None:
        if definition.shape != "registry":
            message = "It has no schema: any arguments are right."
            empty = {"type": "object", "properties": {}, "additionalProperties": False}
            notes.add("missing-schema", "warning", "", message, {definition.schema_key: empty})
        return None
    try:
        compiled = Validators(1).get(schema)
    except SchemaRefused as exc:
        code = "invalid-schema" if "is not valid" in str(exc) else "unusable-schema"
        notes.add(code, "error", at, f"The schema {exc}. Every call is denied.")
        return None
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        notes.add("invalid-schema", "error", at, "Arguments are one object: its type has to be object.",
                  {definition.schema_key: {"type": "object"}})  # fmt: skip
    return compiled


def _parameters(notes: Notes, schema: dict[str, Any]) -> None:
    root = f"/{notes.definition.schema_key}"
    nodes, found = walk(schema)
    for node in nodes:
        parameters.node(notes, root + node.pointer, node)
    for one in found:
        at = root + one.pointer
        wording.parameter_description(notes, at, one)
        parameters.parameter(notes, at, one)
        _default(notes, at, one.name, one.schema)
    own = sum(one.depth == 1 for one in found)
    if own > parameters.MAX_PARAMETERS:
        message = (
            f"It has {own} parameters: models leave out or mix up what is beyond {parameters.MAX_PARAMETERS}."
        )
        notes.add("too-many-parameters", "warning", root, message)
    deepest = max((one for one in found), key=lambda one: one.depth, default=None)
    if deepest is not None and deepest.depth > parameters.MAX_LEVELS:
        message = f"It nests {deepest.depth} levels deep: models lose track beyond {parameters.MAX_LEVELS}."
        notes.add("deep-nesting", "warning", root + deepest.pointer, message)


def _default(notes: Notes, at: str, name: str, schema: Any) -> None:
    if "default" not in schema or "$ref" in schema or len(dumps(schema)) > 20_000:
        return
    try:
        is_valid = jsonschema_rs.validator_for(schema, offline=True).is_valid(schema["default"])
    except (ValueError, jsonschema_rs.ReferencingError):
        return
    if not is_valid:
        message = f"The default of {name!r} is not valid against its own schema."
        notes.add("invalid-default", "warning", f"{at}/default", message)


def _examples(notes: Notes, schema: dict[str, Any], compiled: Compiled) -> None:
    definition = notes.definition
    for index, example in enumerate(definition.examples):
        if problem := _problem(compiled, example):
            message = f"An example is not valid: {problem}. Models copy examples."
            notes.add("invalid-example", "error", f"/examples/{index}", message)
    if definition.shape == "registry" and not definition.examples and schema.get("properties"):
        example = parameters.example_of(schema)
        fix = {"examples": [example]} if _problem(compiled, example) is None else None
        notes.add("missing-examples", "hint", "", "It has no example of its arguments.", fix)


def _problem(compiled: Compiled, example: Any) -> str | None:
    if not isinstance(example, dict):
        return "it is no object"
    try:
        length = len(dumps(example))
        if compiled.accepts(example, length):
            closed = compiled.parameters
            strangers = sorted(example.keys() - closed) if closed is not None else []
            return f"{strangers[0]!r} is no parameter" if strangers else None
        errors = compiled.errors(example, length)
    except (TooLarge, ValueError, TypeError):
        return "it cannot be checked"
    return errors[0].message[:200] if errors else "it does not match the schema"


def _spec(notes: Notes) -> None:
    """What only the registry says: it has to speak of parameters that there are."""
    spec = notes.definition.spec
    if spec is None or spec.parameters is None:
        return
    properties = spec.parameters.get("properties")
    known = set(properties) if isinstance(properties, dict) else set()
    named = [("references", name) for name in spec.references]
    named += [("confirm/show", name) for name in (spec.confirm.show if spec.confirm else ())]
    for where, name in named:
        if name not in known:
            message = f"{where.replace('/', '.')} names {name!r}, which is no parameter of the tool."
            notes.add("unknown-parameter", "error", f"/{where}/{escaped(name)}", message)
    if spec.cache is not None and spec.effect != "read":
        message = (
            f"It is cached, and its effect is {spec.effect}: only what reads is answered from the cache."
        )
        notes.add("cached-write", "warning", "/cache", message)
