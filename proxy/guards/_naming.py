"""How values, names and places in the arguments are shown: short, whatever the model wrote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rapidfuzz import fuzz, process

from proxy.model import dumps

MAX_QUOTED = 60
"""How many characters of a value, or of a name, are shown."""

Path = Sequence[str | int]

_CLOSE_ENOUGH = 70.0  # of 100: "usr" for "user", "serach" for "search"


def clip(text: str, max_bytes: int) -> str:
    """``text``, cut so that it takes at most about ``max_bytes`` as JSON."""
    text = text[:max_bytes]
    while len(dumps(text)) > max_bytes + 2:
        text = text[: len(text) * 3 // 4] + "…"
    return text


def pointer(path: Path) -> str:
    """The RFC 6901 pointer; where it would be very long, that of what holds the value."""
    written = ""
    for part in path:
        longer = f"{written}/{str(part).replace('~', '~0').replace('/', '~1')}"
        if len(longer) > 2 * MAX_QUOTED:
            break
        written = longer
    return written


def quoted(value: Any) -> str:
    """A value as JSON, at most ``MAX_QUOTED`` characters of it."""
    try:
        text = dumps(value[: MAX_QUOTED + 1] if isinstance(value, str) else value).decode()
    except (TypeError, ValueError):  # a decimal, or an integer of thousands of digits
        text = "a number"
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` Did you mean "…"?``, where one of the known names is close enough."""
    match = process.extractOne(
        name[:MAX_QUOTED], known, scorer=fuzz.ratio, processor=_plain, score_cutoff=_CLOSE_ENOUGH
    )
    return f". Did you mean {quoted(match[0])}?" if match else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def subject(path: Path) -> str:
    """What a sentence about the value at ``path`` begins with."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.isidentifier() or part.replace("-", "").isalnum():
            name += f".{part}" if name else part
        else:
            name += f"[{quoted(part)}]"
    if len(name) > 2 * MAX_QUOTED:
        name = f"{name[:MAX_QUOTED]}…{name[-MAX_QUOTED:]}"
    return f"Parameter {name}" if name else "The arguments object"
