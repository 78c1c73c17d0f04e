"""A request's query, part by part, as it was written."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_plus

from proxy.wire.codec import BadRequest

_MAX_PAGE = 100
_PAGE = 20


@dataclass(frozen=True, slots=True)
class Query:
    """The parts of a query string: what is not taken out goes on in its order and spelling."""

    text: str

    def get(self, name: str) -> str | None:
        """The decoded value; raises ``BadRequest`` where it is there twice."""
        found = [value for key, value in self._parts() if key == name]
        if len(found) > 1:
            raise BadRequest(f"{name} is there more than once.", name)
        return found[0] if found else None

    def without(self, *names: str) -> Query:
        """The query without these members."""
        parts = self.text.split("&") if self.text else []
        return Query("&".join(part for part in parts if _read(part)[0] not in names))

    def adding(self, part: str) -> Query:
        """The query with one more part."""
        return Query(f"{self.text}&{part}" if self.text else part)

    def flag(self, name: str) -> bool:
        """Whether it asks for this; raises ``BadRequest`` for what is neither true nor false."""
        value = self.get(name)
        if value is None or value.lower() in ("false", "0", ""):
            return False
        if value.lower() in ("true", "1"):
            return True
        raise BadRequest(f"{name} must be true or false.", name)

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number within bounds; raises ``BadRequest``."""
        value = self.get(name)
        if value is None:
            return default
        if not value.lstrip("-").isdecimal() or len(value) > 12 or not least <= int(value) <= most:
            raise BadRequest(f"{name} must be a whole number from {least} to {most}.", name)
        return int(value)

    def page(self) -> tuple[str | None, int]:
        """The cursor, and how many are asked for."""
        if self.get("before") is not None:
            raise BadRequest("before is not served: list in the other order, and with after.", "before")
        return self.get("after"), self.number("limit", _PAGE, 1, _MAX_PAGE)

    def _parts(self) -> list[tuple[str, str]]:
        return [_read(part) for part in self.text.split("&") if part]


def _read(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return unquote_plus(name), unquote_plus(value)
