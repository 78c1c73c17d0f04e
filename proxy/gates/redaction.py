"""Taking out of a tool result what the model must not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import Fault, dumps, loads
from proxy.ports import Patterns, Unavailable

REDACTED = "[redacted]"

# Where words of ASCII end: other letters stand beside a secret in languages that have no spaces.
_EDGE = r"(?-u:\b)"
# Where a secret may begin. In what is quoted, no word ends before it: JSON writes a line break as a letter,
# and URLs and terminals have escapes that end in a letter or a digit as well. They go with it, whole, however
# often their backslash was escaped: half of one would make what is left no JSON any more.
_START = (
    rf"(?:{_EDGE}|\\+(?:[bfnrtv]|u[0-9A-Fa-f]{{4}}|x[0-9A-Fa-f]{{2}})|%[0-9A-Fa-f]{{2}}|"
    r"(?:\x1b|\\+(?:u001[Bb]|x1[Bb]|033|e))\[[0-9;]*[mK])"
)
# By name: a pattern for each kind of secret whose shape its issuer has fixed, joined to one.
_SECRETS = (
    r"sk-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic and those that follow them
    rf"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}{_EDGE}",  # AWS access key ids
    r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}",
    r"glpat-[A-Za-z0-9_-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"AIza[A-Za-z0-9_-]{35}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"npm_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{50,}",
    r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",  # JSON Web Tokens
    # Some write / + and = in JSON as escapes: a token does not end there.
    r"(?i:bearer\s+(?:[a-z0-9._~+/=-]|\\+(?:/|u00(?:2[bdf]|3d))){16,})",
)
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?s:.*?)"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)"
)
NAMED: Mapping[str, str] = {"secrets": f"{_START}(?:{'|'.join(_SECRETS)})|{_PRIVATE_KEY}"}

# Each pattern of a name needs one of these (compared without case): most texts have none of them.
_HINTS: Mapping[str, tuple[str, ...]] = {
    "secrets": (
        *(
            "sk-",
            "akia",
            "asia",
            "abia",
            "acca",
            "a3t",
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
        ),
        *("glpat-", "xox", "aiza", "k_live_", "k_test_", "npm_", "hf_", "pypi-", "eyj", "bearer"),
        "private key",
    ),
}


class Unreadable(ValueError):
    """What pointers should take out cannot be found, because the text has no one reading as JSON."""


def without_named(text: str, names: Sequence[str], patterns: Patterns) -> str:
    """``text`` without what the names stand for; raises ``Unavailable``."""
    for name in names:
        folded = text.lower()
        if any(hint in folded for hint in _HINTS[name]):
            text = patterns.replace(text, NAMED[name], REDACTED)
    return text


def without_patterns(text: str, expressions: Sequence[str], patterns: Patterns) -> str:
    """``text`` without what the expressions match; raises ``Unavailable``."""
    for expression in expressions:
        text = patterns.replace(text, expression, REDACTED)
    return text


def without_pointers(text: str, pointers: Sequence[str]) -> str:
    """JSON text without what the pointers lead to; the text as it is where they lead nowhere.

    JSON that was quoted is read as well, as often as it was: models see through that. Raises ``Unreadable``
    for text that may hold JSON and has no one reading: what is looked for could stand in it all the same.
    """
    if not pointers or not ("{" in text or "[" in text):
        return text
    try:
        before = value = loads(text)
        if isinstance(value, str):
            left = without_pointers(value, pointers)
            return text if left is value else dumps(left).decode()
        for pointer in pointers:
            value = _redacted(value, _parts(pointer))
    except (Fault, RecursionError):
        raise Unreadable("what must not be shown cannot be found in it") from None
    return text if value is before else dumps(value).decode()


def check_pointers(pointers: Sequence[str]) -> tuple[str, ...]:
    """The pointers of a decision; raises ``Unavailable`` where one is none."""
    if any(pointer and not pointer.startswith("/") for pointer in pointers):
        raise Unavailable("pointers holds what is no JSON pointer")
    return tuple(pointers)


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _redacted(value: Any, parts: Sequence[str]) -> Any:
    """The value with the place taken out; the very same value where there is no such place."""
    if not parts:
        return REDACTED
    if isinstance(value, str):
        return _redacted_text(value, parts)
    head, rest = parts[0], parts[1:]
    if isinstance(value, dict) and head in value:
        inner = _redacted(value[head], rest)
        return value if inner is value[head] else {**value, head: inner}
    if isinstance(value, list) and head == "*":
        items = [_redacted(item, rest) for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    if isinstance(value, list) and (at := _index(head)) is not None and at < len(value):
        inner = _redacted(value[at], rest)
        return value if inner is value[at] else [*value[:at], inner, *value[at + 1 :]]
    return value


def _redacted_text(text: str, parts: Sequence[str]) -> str:
    """A text within JSON where a pointer leads further: JSON may have been quoted to stand there."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return text
    try:
        value = loads(text)
    except Fault:
        return REDACTED  # what is looked for could stand in it all the same
    left = _redacted(value, parts)
    return text if left is value else dumps(left).decode()


def _index(text: str) -> int | None:
    """A place in a list as RFC 6901 writes it: no sign, no leading zero."""
    index = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    return index if str(index) == text else None
