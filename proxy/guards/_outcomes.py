"""What a tool result says of its call: that it failed, or that it came to nothing."""

from __future__ import annotations

from typing import Any

import orjson

_FAILURES = ("error", "traceback", "exception", "failed:", "failure:", "fatal:")
_FAILED_KEYS = ("error", "errors", "isError", "is_error")
_SUCCESS_KEYS = ("success", "ok")
_WORDS = ("rror", '"success"', '"ok"')
_NOTHING = frozenset({"", "[]", "{}", "null", "none", '""'})


def is_error(result: str) -> bool:
    """Whether a result reports a failure.

    It does when its text begins with a word such as ``Error`` or ``Traceback``, or when it is a JSON
    object whose ``error``, ``errors``, ``isError`` or ``is_error`` says something, or whose ``success``
    or ``ok`` is false.
    """
    text = result.lstrip()
    if not text.startswith("{"):
        return text[:12].lower().lstrip("`*#[<( ").startswith(_FAILURES)
    if not any(word in text for word in _WORDS):
        return False
    try:
        value = orjson.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and _reports_failure(value)


def _reports_failure(value: dict[str, Any]) -> bool:
    failed = any(value.get(key) for key in _FAILED_KEYS)
    return failed or any(value.get(key) is False for key in _SUCCESS_KEYS)


def is_empty(result: str) -> bool:
    """Whether a result holds nothing: no text, ``null``, ``[]``, ``{}``."""
    return len(result) < 32 and result.strip().lower() in _NOTHING
