"""What is wrong with tools beside one another: a model has to tell them apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from proxy.model import dumps
from proxy.schemas.definitions import Definition
from proxy.schemas.lint.findings import Finding, Severity, sorted_by_weight
from proxy.schemas.lint.walking import words

MANY_TOOLS, MOST_TOOLS = 20, 128
"""OpenAI advises fewer than 20 at a time, and takes 128."""

_MAX_COMPARED = 400
_NEAR_NAMES = 90
_NEAR_TEXTS = 92
_MIN_TEXT_CHARS, _MAX_TEXT_CHARS = 20, 600
# Cyrillic and Greek letters that are drawn like Latin ones (Unicode TR 39, confusables).
_HOMOGLYPHS = str.maketrans("аеорсухіјѕһԁԛԝνορατικ", "aeopcyxijshdqwvopatik")
_LOOKALIKES = str.maketrans({"0": "o", "1": "l", "i": "l", "|": "l", "5": "s"})


def lint_together(definitions: Sequence[Definition]) -> list[Finding]:
    """Names that collide or look alike, texts that say the same, and too many of them."""
    return [*_too_many(definitions), *_pairs(definitions[:_MAX_COMPARED])]


def _too_many(definitions: Sequence[Definition]) -> list[Finding]:
    count = len({one.name for one in definitions})
    size = sum(len(dumps([one.tool.description, one.tool.parameters])) for one in definitions)
    place = definitions[0].place.file if definitions else ""
    cure = "Let a policy hide those that a role may not use."
    if count > MOST_TOOLS:
        message = f"{count} tools: APIs take {MOST_TOOLS} at a time. {cure}"
        return [Finding("too-many-tools", "error", "", place, message)]
    if count > MANY_TOOLS:
        tokens = f"{count} tools, about {size // 4} tokens a request"
        message = f"{tokens}: beyond {MANY_TOOLS} models choose badly. {cure}"
        return [Finding("too-many-tools", "warning", "", place, message)]
    return []


@dataclass(frozen=True)
class _Known:
    """One tool, and what it is compared by."""

    definition: Definition
    name: str
    lower: str
    words: tuple[str, ...]
    skeleton: str
    text: str

    @classmethod
    def of(cls, one: Definition) -> _Known:
        spelled = words(one.name) if one.name.isascii() else ()
        text = one.tool.description[:_MAX_TEXT_CHARS]
        return cls(one, one.name, one.name.lower(), spelled, _skeleton(one.name), text)


def _pairs(definitions: Sequence[Definition]) -> list[Finding]:
    """For each tool, the worst that it has in common with one before it."""
    found: list[Finding] = []
    known = list(map(_Known.of, definitions))
    for index, one in enumerate(known):
        pairs = [pair for other in known[:index] if (pair := _pair(other, one)) is not None]
        found += sorted_by_weight(pairs)[:1]
    return found


def _pair(one: _Known, other: _Known) -> Finding | None:
    """The worst that two tools have in common."""
    where = f"{one.name!r} ({one.definition.place.at('')})"
    if one.name == other.name:
        return _said("duplicate-name", "error", other, f"There are two tools of this name: {where}.")
    if one.lower == other.lower or one.words == other.words != ():
        return _said("colliding-name", "error", other, f"It differs from {where} in spelling only.")
    if one.skeleton == other.skeleton:
        return _said("lookalike-name", "error", other, f"It looks like {where}, and is another tool.")
    if fuzz.ratio(one.name, other.name, score_cutoff=_NEAR_NAMES):
        message = f"Its name is near that of {where}: say in both descriptions which is for what."
        return _said("similar-name", "warning", other, message)
    is_long = min(len(one.text), len(other.text)) >= _MIN_TEXT_CHARS
    if is_long and fuzz.ratio(one.text, other.text, score_cutoff=_NEAR_TEXTS):
        return _said("same-description", "warning", other, f"Its description is nearly that of {where}.")
    return None


def _said(code: str, severity: Severity, tool: _Known, message: str) -> Finding:
    return Finding(code, severity, tool.name, tool.definition.place.at("/name"), message)


def _skeleton(name: str) -> str:
    """What is left of a name when what looks alike is alike: I and l, O and 0, rn and m, accents."""
    plain = unicodedata.normalize("NFKD", name).lower().translate(_HOMOGLYPHS).translate(_LOOKALIKES)
    return "".join(c for c in plain if not unicodedata.combining(c)).replace("rn", "m").replace("vv", "w")
