"""Making a tool result fit to read: raw errors in a sentence, and not more of it than a model can use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from proxy.model import Fault, dumps, loads

MAX_MESSAGE_CHARS = 300
# A dump stands at the beginning of a result, or follows a few words of whoever passed it on.
_MAX_LEAD_CHARS = 200
_MAX_HEAD_CHARS = 4000
_MAX_HEAD_LINES = 12
_MAX_DUMP_CHARS = 256 * 1024
_MAX_LINE_CHARS = 1000

_PYTHON = "Traceback (most recent call last):"
_PYTHON_ERROR = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?$")
_FRAME = re.compile(r"\s+at \S")
_THROWN = re.compile(
    r"(?:Exception in thread \"[^\"]*\" |Unhandled exception\. |Uncaught |Caused by: |Error: )?"
    r"(?:\(node:\d+\) )?((?:[A-Za-z_][\w.$]*)?(?:Error|Exception|Throwable|Failure))(?: \[\w+\])?(?:: (.*))?$"
)
_GO_PANIC = re.compile(r"(?:panic|fatal error): (.*)$")
_HTML = re.compile(r"(?i)\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!doctype html[^>]{0,200}>|<html[\s>])")
_TITLE = re.compile(r"(?i)<title[^>]{0,100}>([^<]{1,300})</title>")
_ERROR_TITLE = re.compile(
    r"(?i)\s*(?:http\s+)?(?:error\s+|status\s+)*(?:[45]\d\d\b.*|(?:bad request|unauthorized|forbidden|"
    r"not found|method not allowed|internal server error|server error|bad gateway|service unavailable|"
    r"gateway time-?out|too many requests)\s*)$"
)
_TRACE_KEYS = frozenset({"stack", "stacktrace", "stack_trace", "trace", "traceback", "exception"})
_TRANSIENT = re.compile(
    r"(?i)time-?d? ?out|\btemporar|unavailable|too many requests|rate limit|"
    r"connection (?:refused|reset|error)|econnre|etimedout|\b(?:429|502|503|504)\b|bad gateway"
)


def tool_error(message: str, retryable: bool = False, type: str = "tool_error") -> str:
    """An error as the model reads it, like those that guards write."""
    error = {"type": type, "message": _clipped(message), "retryable": retryable}
    return dumps({"error": error}).decode()


def shaped(text: str) -> str | None:
    """What a raw error says, in a sentence for the model; None for whatever is not one as a whole.

    Known are the traces of Python, Java, Node, Go and .NET, alone or as a member of a JSON error, and
    HTML error pages. A text that only has one in it is left alone: somebody may want to read it.
    """
    if len(text) > _MAX_DUMP_CHARS:
        return None
    first = text.lstrip()[:1]
    message = _html(text) if first == "<" else _json(text) if first == "{" else _dump(text)
    return None if message is None else tool_error(message, bool(_TRANSIENT.search(message[:2000])))


def _html(text: str) -> str | None:
    if not _HTML.match(text):
        return None
    title = _TITLE.search(text, 0, _MAX_HEAD_CHARS)
    return f"HTTP error: {title[1].strip()}" if title and _ERROR_TITLE.match(title[1]) else None


def _json(text: str) -> str | None:
    if "Traceback (most" not in text and "\\n" not in text:
        return None
    try:
        value = loads(text)
    except Fault:
        return None
    error = value.get("error")
    if isinstance(error, str):
        return _dump(error)
    return _error_object(error) if isinstance(error, dict) else _error_object(value)


def _error_object(value: dict[str, Any]) -> str | None:
    traces = [str(value[key]) for key in value if key.lower() in _TRACE_KEYS]
    told = next((dump for trace in traces if (dump := _dump(trace))), None)
    message = next((value[key] for key in ("message", "error") if isinstance(value.get(key), str)), None)
    return (message or told) if told else None


def _dump(text: str) -> str | None:
    lead = text[:_MAX_LEAD_CHARS]
    if _PYTHON in lead:
        return _python(text.rstrip().split("\n"))
    head = text[:_MAX_HEAD_CHARS].lstrip().split("\n", _MAX_HEAD_LINES)
    if head[0].startswith(("panic: ", "fatal error: ")):
        found = _GO_PANIC.match(head[0][:_MAX_LINE_CHARS])
        return f"panic: {found[1]}" if found and any("goroutine " in line[:20] for line in head) else None
    return _thrown(text, head)


def _python(lines: Sequence[str]) -> str | None:
    """The last error of a trace that goes on to the end of the text."""
    last = max((at for at, line in enumerate(lines) if line.startswith("  ")), default=None)
    if last is None or last + 1 >= len(lines):
        return None
    found = _PYTHON_ERROR.match(lines[last + 1].rstrip("\r")[:_MAX_LINE_CHARS])
    return None if found is None else _said(found[1].rpartition(".")[2], found[2])


def _thrown(text: str, head: Sequence[str]) -> str | None:
    """An error named in one of the first lines, whose frames follow and fill the rest."""
    frames = next((at for at, line in enumerate(head) if _FRAME.match(line[:_MAX_LINE_CHARS])), None)
    if frames is None or not _is_trace(text.strip().split("\n")[frames:]):
        return None
    for line in head[:frames]:
        line = line.rstrip("\r")[:_MAX_LINE_CHARS]
        if found := _THROWN.match(line):
            return _said(re.split(r"[.$]", found[1])[-1], found[2])
    return None


def _is_trace(lines: Sequence[str]) -> bool:
    """Whether nearly all of these lines are a trace's own: frames, causes, what is indented."""
    own = sum(1 for line in lines if not line.strip() or line[:1] in " \t}" or line.startswith("Caused by"))
    return len(lines) - own <= 1 + len(lines) // 8


def _said(name: str, message: str | None) -> str:
    return f"{name}: {message.strip()}" if message and message.strip() else name


def _clipped(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= MAX_MESSAGE_CHARS else f"{message[: MAX_MESSAGE_CHARS - 1]}…"


def shortened(text: str, max_bytes: int) -> str:
    """Beginning and end of a text, and between them how much was cut; as it is where it fits.

    What comes out has at most ``max_bytes`` (256 at least) as UTF-8, so that it fits the next time.
    """
    if len(text) * 4 <= max_bytes or (text.isascii() and len(text) <= max_bytes):
        return text
    raw = text.encode(errors="replace")
    if len(raw) <= max_bytes:
        return text
    room = max_bytes - len(_cut(len(raw)).encode())
    head, tail = raw[: room * 4 // 5], raw[len(raw) - room // 5 :]
    kept = head.decode(errors="ignore"), tail.decode(errors="ignore")
    return _cut(len(raw) - sum(len(part.encode()) for part in kept)).join(kept)


def _cut(size: int) -> str:
    return f"\n[... {size} bytes of this result were left out ...]\n"
