"""The file of Callgate's own API keys: their digests, whose each is, and how long it works."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from proxy.model import Principal

MAX_ID = 256

_NAME, _TIME = "one short name", "a date, or a date and time with its offset (2027-01-31T12:00:00Z)"
_FIELDS = {
    "id": _NAME,
    "roles": "a list of short names",
    "tenant": _NAME,
    "expires": _TIME,
    "created": _TIME,
    "note": "one short line",
}
_NULL = "tag:yaml.org,2002:null"
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
# RFC 3339 5.6, or a date alone. A time without an offset is another moment for each of its readers.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d))?", re.ASCII)


class IdentityFault(ValueError):
    """A way to tell who asks cannot be set up; ``faults`` says why. Never holds a key."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Key(NamedTuple):
    """One key of the file, which holds its digest and never the key."""

    owner: Principal
    expires: datetime | None = None
    """From when on it is refused."""
    created: datetime | None = None
    note: str = ""

    @property
    def expires_s(self) -> float | None:
        """The same in seconds since the epoch."""
        return self.expires.timestamp() if self.expires else None


class Entry(NamedTuple):
    """One key with its place in the text."""

    digest: str
    key: Key
    name: yaml.Node
    fields: yaml.Node


def read_key_file(path: Path) -> dict[str, Key]:
    """The keys by their SHA-256 in lower case; raises ``IdentityFault`` naming every fault."""
    try:
        text = path.read_bytes().decode()
    except OSError as exc:
        raise IdentityFault([f"{path}: {exc.strerror or exc} (name a file that can be read)"]) from None
    except UnicodeDecodeError as exc:
        raise IdentityFault([f"{path}: not UTF-8 text at byte {exc.start} (save it as UTF-8)"]) from None
    return {entry.digest: entry.key for entry in read_entries(text, str(path))}


def read_entries(text: str, path: str) -> list[Entry]:
    """The keys of a file's ``text`` in their order; raises ``IdentityFault`` naming every fault."""
    faults: list[str] = []
    entries: dict[str, Entry] = {}
    for name, fields in _pairs(text, path):
        place, digest = f"{path}, line {name.start_mark.line + 1}", (_scalar(name) or "").lower()
        if not _DIGEST.fullmatch(digest):
            faults.append(f"{place}: not a SHA-256 in 64 hex digits (printf %s KEY | sha256sum tells it)")
        elif digest in entries:
            faults.append(f"{place}: this key is there already (keep one)")
        else:
            entries[digest] = Entry(digest, _key(place, fields, faults), name, fields)
    if faults:
        raise IdentityFault(faults)
    return list(entries.values())


def _pairs(text: str, path: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """The file's entries in order. The text is told nowhere: it may hold keys."""
    try:
        # Nodes, not values: a digest of nothing but digits stays text, and what is there twice is seen.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise IdentityFault([f"{path}{line}: not valid YAML (write: DIGEST: {{id: NAME}})"]) from None
    if node is None or node.tag == _NULL:
        return
    if not isinstance(node, yaml.MappingNode):
        raise IdentityFault([f"{path}: not a mapping (write: DIGEST: {{id: NAME}})"])
    yield from node.value


def _key(place: str, node: yaml.Node, faults: list[str]) -> Key:
    """The key that an entry describes; what is wrong with it is added to ``faults``."""
    fields: dict[str, Any] = {}
    for name_node, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = _scalar(name_node)
        if name not in _FIELDS:
            faults.append(f"{place}: unknown key (known: {', '.join(_FIELDS)})")
        elif name in fields:
            faults.append(f"{place}: {name} is there twice (keep one)")
        else:
            fields[name] = _value(name, value)
            if fields[name] is None:
                faults.append(f"{place}: {name} is not {_FIELDS[name]} (write it as text)")
    if "id" not in fields:
        faults.append(f"{place}: nobody is named (write {{id: NAME}})")
    owner = Principal(
        fields.get("id", ""), fields.get("roles", ()), fields.get("tenant", ""), kind="api_keys"
    )
    return Key(owner, fields.get("expires"), fields.get("created"), fields.get("note", ""))


def _value(name: str, node: yaml.Node) -> Any:
    if name == "roles":
        return _names(node)
    text = _name(node)
    return moment(text or "") if name in ("expires", "created") else text


def _scalar(node: yaml.Node) -> str | None:
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _name(node: yaml.Node) -> str | None:
    value = _scalar(node)
    if value is None or node.tag == _NULL or not is_name(value):
        return None
    return value


def _names(node: yaml.Node) -> tuple[str, ...] | None:
    if not isinstance(node, yaml.SequenceNode):
        return None
    names = [name for item in node.value if (name := _name(item)) is not None]
    return tuple(names) if len(names) == len(node.value) else None


def moment(text: str) -> datetime | None:
    """The moment that RFC 3339 text names, of a date its first in UTC; None where it names none."""
    if not _MOMENT.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text.upper())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # 2027-02-30; the year 1 with an offset
        return None


def is_name(value: str) -> bool:
    """Whether this can name a principal, a role or a tenant: one short line of printable text."""
    return 0 < len(value) <= MAX_ID and value.isprintable() and value == value.strip()
