"""Callgate's own API keys: a YAML file of their digests, and whose each is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from proxy.model import Principal

MAX_ID = 256

_FIELDS = {"id": "one short name", "roles": "a list of short names", "tenant": "one short name"}
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


class IdentityFault(ValueError):
    """A way to tell who asks cannot be set up; ``faults`` says why. Never holds a key."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def read_key_file(path: Path) -> dict[str, Principal]:
    """The owner of each key, by the key's SHA-256; raises ``IdentityFault`` naming every fault."""
    faults: list[str] = []
    principals: dict[str, Principal] = {}
    for place, digest, node in _entries(path):
        if not _DIGEST.fullmatch(digest):
            faults.append(f"{place}: not a SHA-256 in 64 hex digits (printf %s KEY | sha256sum tells it)")
        elif digest.lower() in principals:
            faults.append(f"{place}: this key is there already (keep one)")
        else:
            principals[digest.lower()] = _owner(place, node, faults)
    if faults:
        raise IdentityFault(faults)
    return principals


def _entries(path: Path) -> Iterator[tuple[str, str, yaml.Node]]:
    """The file's keys in order, each with its place. The text is told nowhere: it may hold keys."""
    try:
        # Nodes, not values: a digest of nothing but digits stays text, and what is there twice is seen.
        node = yaml.compose(path.read_bytes(), Loader=yaml.SafeLoader)
    except OSError as exc:
        raise IdentityFault([f"{path}: {exc.strerror or exc} (name a file that can be read)"]) from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise IdentityFault([f"{path}{line}: not valid YAML (write: DIGEST: {{id: NAME}})"]) from None
    if node is None:
        return
    if not isinstance(node, yaml.MappingNode):
        raise IdentityFault([f"{path}: not a mapping (write: DIGEST: {{id: NAME}})"])
    for key, value in node.value:
        yield f"{path}, line {key.start_mark.line + 1}", _scalar(key) or "", value


def _owner(place: str, node: yaml.Node, faults: list[str]) -> Principal:
    """The principal that an entry describes; what is wrong with it is added to ``faults``."""
    fields: dict[str, Any] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        name = _scalar(key)
        if name not in _FIELDS:
            faults.append(f"{place}: unknown key (known: {', '.join(_FIELDS)})")
        elif name in fields:
            faults.append(f"{place}: {name} is there twice (keep one)")
        else:
            fields[name] = _names(value) if name == "roles" else _name(value)
            if fields[name] is None:
                faults.append(f"{place}: {name} is not {_FIELDS[name]} (write it as text)")
    if "id" not in fields:
        faults.append(f"{place}: nobody is named (write {{id: NAME}})")
    return Principal(fields.get("id", ""), fields.get("roles", ()), fields.get("tenant", ""), kind="api_keys")


def _scalar(node: yaml.Node) -> str | None:
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _name(node: yaml.Node) -> str | None:
    value = _scalar(node)
    if value is None or node.tag == "tag:yaml.org,2002:null" or not is_name(value):
        return None
    return value


def _names(node: yaml.Node) -> tuple[str, ...] | None:
    if not isinstance(node, yaml.SequenceNode):
        return None
    names = [name for item in node.value if (name := _name(item)) is not None]
    return tuple(names) if len(names) == len(node.value) else None


def is_name(value: str) -> bool:
    """Whether this can name a principal, a role or a tenant: one short line of printable text."""
    return 0 < len(value) <= MAX_ID and value.isprintable() and value == value.strip()
