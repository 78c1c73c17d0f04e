"""What descriptions say, and what they hide."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from proxy.schemas.definitions import escaped
from proxy.schemas.lint.findings import Notes
from proxy.schemas.lint.walking import Parameter, words

_MIN_WORDS = 6
_MIN_PARAMETER_WORDS = 2
_MAX_CHARS = 1024
_READ_CHARS = 4000
_EMPTY_WORDS = frozenset(
    {
        *(
            "a",
            "an",
            "the",
            "this",
            "that",
            "of",
            "for",
            "to",
            "is",
            "it",
            "be",
            "and",
            "or",
            "with",
            "by",
            "on",
        ),
        *("in", "tool", "function", "method", "helper", "parameter", "param", "argument", "value", "string"),
        *("number", "integer", "boolean", "object", "array", "list", "field", "input"),
    }
)
# U+200C and U+200D are part of how some scripts, and emoji, are written.
_JOINERS = frozenset("\u200c\u200d")
_VALUE = r"""["'`]?[\w.-]{1,40}["'`]?"""
_AND = r"\s{0,2}(?:,\s{0,2}(?:or|and)\s|,|/|\||\sor\s|\sand\s)\s{0,2}"
_LIST = f"{_VALUE}(?:{_AND}{_VALUE}){{1,30}}"
_TOLD = re.compile(
    r"(?i)(?:one of(?: the following)?|either|allowed values?(?: are)?|possible values?(?: are)?|"
    rf"valid values?(?: are)?|options?(?: are)?|(?:must|can) be(?= *[\"'`]))[ :(]{{0,3}}({_LIST})"
)
_BARRED = re.compile(rf"(?<![\w|])((?:{_VALUE}\s?\|\s?){{1,30}}{_VALUE})(?![\w|])")
_ITEM = re.compile(r"[\w.-]+")
_NO_ITEM = frozenset({"or", "and", "the", "a", "an", "be", "its", "their", "of", "following", "these"})
_INSTRUCTING = re.compile(
    r"(?i)\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules|guidelines)\b"
    r"|\bdo(?:n't| not)\s+(?:tell|mention|inform|reveal|show|notify)\b.{0,30}\b(?:users?|humans?|anyone)\b"
    r"|<\s*/?\s*(?:important|system|secret|instructions?|admin)\b[^>]{0,40}>"
    r"|\bsystem prompt\b"
    r"|\b(?:read|open|send|include|pass|attach|copy|upload)\b.{0,60}"
    r"(?:~/\.|\.ssh\b|id_rsa|/etc/passwd|\.env\b|\bprivate keys?\b|\bcredentials\b|\bapi[ _-]?keys?\b)"
)


def tool_description(notes: Notes) -> None:
    """Whether the description tells a model when to call the tool."""
    tool = notes.definition.tool
    text, name = tool.description.strip(), " ".join(words(tool.name)) or "does its work"
    better = f"{name.capitalize()}: what it does and returns, when to use it, and what it cannot do."
    if not text:
        notes.add("missing-description", "warning", "", "It has no description: the model has only its name.",
                  {"description": better})  # fmt: skip
    elif _adds_nothing(text, tool.name) or len(text.split()) < _MIN_WORDS:
        message = f"The description ({text[:60]!r}) hardly says more than the name."
        notes.add("vague-description", "warning", "/description", message, {"description": better})
    elif len(text) > _MAX_CHARS:
        message = f"The description has {len(text)} characters: every request pays for them."
        notes.add("long-description", "hint", "/description", message)


def parameter_description(notes: Notes, at: str, parameter: Parameter) -> None:
    """Whether the description tells a model what to write."""
    name, text = parameter.name, parameter.schema.get("description")
    example = f"What {' '.join(parameter.words) or name} is, its form, and an example."
    fix = {name: {"description": example}}
    if not isinstance(text, str) or not text.strip():
        message = f"The parameter {name!r} has no description."
        notes.add("missing-parameter-description", "warning", at, message, fix)
    elif len(text.split()) < _MIN_PARAMETER_WORDS or _adds_nothing(text, name):
        message = f"The description of {name!r} ({text[:60]!r}) says no more than its name."
        notes.add("vague-parameter-description", "hint", at, message, fix)


def _adds_nothing(text: str, name: str) -> bool:
    said = {word.lower().rstrip("s") for word in re.findall(r"[^\W_]+", text)} - _EMPTY_WORDS
    return said <= {word.rstrip("s") for word in words(name)} | {name.lower()}


def told_values(description: str) -> list[str]:
    """The closed list of values that a description tells in prose, [] where it tells none."""
    text = description[:_READ_CHARS]
    found = _TOLD.search(text) or _BARRED.search(text)
    if found is None:
        return []
    items = [item.strip(".") for item in _ITEM.findall(found[1])]
    values = list(dict.fromkeys(item for item in items if item and item.lower() not in _NO_ITEM))
    return values if len(values) > 1 else []


def hidden(notes: Notes) -> None:
    """What a person does not see, or would not expect, in texts that a model reads."""
    tool, key = notes.definition.tool, notes.definition.schema_key
    said = [("/name", tool.name), ("/description", tool.description)]
    texts = [*said, *_texts(tool.parameters, f"/{key}", 0), *_texts(tool.more, "", 0)]
    for pointer, text in texts:
        if unseen := sorted({char for char in text if _is_unseen(char)}):
            codes = ", ".join(f"U+{ord(char):04X}" for char in unseen[:5])
            message = f"It holds characters that people do not see ({codes}) and models read: take them out."
            notes.add("hidden-text", "error", pointer, message)
        if found := _INSTRUCTING.search(text[:_READ_CHARS]):
            message = (
                f"It tells the model what to do beyond the tool ({found[0][:60]!r}): tool poisoning reads so."
            )
            notes.add("instructing-description", "warning", pointer, message)


def _is_unseen(char: str) -> bool:
    if char in "\n\r\t" or char in _JOINERS:
        return False
    return unicodedata.category(char) in ("Cc", "Cf", "Co", "Zl", "Zp")


def _texts(value: Any, pointer: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield pointer, value
    elif depth > 64:
        return
    elif isinstance(value, dict):
        for key, below in value.items():
            yield f"{pointer}/{escaped(key)}", str(key)
            yield from _texts(below, f"{pointer}/{escaped(key)}", depth + 1)
    elif isinstance(value, Sequence):
        for index, below in enumerate(value):
            yield from _texts(below, f"{pointer}/{index}", depth + 1)
