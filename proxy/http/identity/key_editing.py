"""Change a key file in place: what is not changed stays as it was written, comments and all."""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import yaml

from proxy.http.identity.key_file import Entry, IdentityFault, Key, read_entries

_HEADING = """\
# Callgate's own API keys: the SHA-256 of each, and whose it is. `callgate keys` writes here, and so may you.
"""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.@/-]*")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_IN_PLACE = "cannot be changed in place as it is written (write each key on a line: DIGEST: {id: NAME})"


class KeyFile:
    """A key file that is being changed: ``change`` locks it, and replaces it whole or not at all."""

    def __init__(self, text: str, path: str) -> None:
        self.text, self._path = text, path
        self.keys: Mapping[str, Key] = {}
        self._read()

    def add(self, digest: str, key: Key) -> None:
        """Add a key at the end."""
        entries = self._entries
        indent = " " * entries[0].name.start_mark.column if entries else ""
        head = self.text + ("" if not self.text or self.text.endswith("\n") else "\n")
        self._become(f"{head}{indent}{_line(digest, key)}\n", {**self.keys, digest: key})

    def remove(self, digests: Collection[str]) -> None:
        """Remove keys with the lines that they stand on; comments above them stay."""
        text = self.text
        for entry in reversed([entry for entry in self._entries if entry.digest in digests]):
            start = text.rfind("\n", 0, entry.name.start_mark.index) + 1
            end = text.find("\n", _end(entry.fields))
            text = text[:start] + (text[end + 1 :] if end >= 0 else "")
        self._become(text, {digest: key for digest, key in self.keys.items() if digest not in digests})

    def expire(self, digests: Collection[str], at: datetime) -> None:
        """Let keys expire at a moment, or when they already would."""
        text, keys = self.text, dict(self.keys)
        for entry in reversed([entry for entry in self._entries if entry.digest in digests]):
            if entry.key.expires is None or entry.key.expires > at:
                text = _with_expiry(text, entry, stamp(at))
                keys[entry.digest] = entry.key._replace(expires=at)
        self._become(text, keys)

    def _become(self, text: str, keys: Mapping[str, Key]) -> None:
        """Take the changed text, if it reads as what it was meant to be; raises ``IdentityFault``."""
        try:
            read = {entry.digest: entry.key for entry in read_entries(text, self._path)}
        except IdentityFault:
            read = None
        if read != keys:
            raise IdentityFault([f"{self._path}: {_IN_PLACE}"])
        self.text = text
        self._read()

    def _read(self) -> None:
        self._entries = read_entries(self.text, self._path)
        self.keys = {entry.digest: entry.key for entry in self._entries}


@contextmanager
def change(path: Path, create: bool = False) -> Iterator[KeyFile]:
    """The file's keys to change; it is written when the block ends well. Raises ``IdentityFault``.

    Two that change it at once wait for one another; who reads it meanwhile sees it before or after.
    """
    try:
        target = path.resolve()
        with _locked(target.parent):
            exists = target.exists()
            if not exists and not create:
                raise IdentityFault([f"{path}: there is no such file (name the one of identity[].path)"])
            file = KeyFile(target.read_bytes().decode() if exists else _HEADING, str(path))
            before = file.text
            yield file
            if file.text != before:
                _replace(target, file.text.encode())
    except OSError as exc:
        raise IdentityFault(
            [f"{path}: {exc.strerror or exc} (it must be a file that can be changed)"]
        ) from None
    except UnicodeDecodeError:
        raise IdentityFault([f"{path}: not UTF-8 text (save it as UTF-8)"]) from None


def stamp(at: datetime) -> str:
    """A moment as key files hold it."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _line(digest: str, key: Key) -> str:
    owner = key.owner
    fields = {
        "id": _text(owner.id),
        "roles": f"[{', '.join(map(_text, owner.roles))}]" if owner.roles else "",
        "tenant": _text(owner.tenant) if owner.tenant else "",
        "created": stamp(key.created) if key.created else "",
        "expires": stamp(key.expires) if key.expires else "",
        "note": _text(key.note) if key.note else "",
    }
    return f"{digest}: {{{', '.join(f'{name}: {value}' for name, value in fields.items() if value)}}}"


def _text(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def _with_expiry(text: str, entry: Entry, at: str) -> str:
    """The text with the entry's ``expires`` replaced, or put before its first field."""
    assert isinstance(entry.fields, yaml.MappingNode), "an entry that was read names somebody"
    for name, value in entry.fields.value:
        if name.value == "expires":
            return text[: value.start_mark.index] + at + text[value.end_mark.index :]
    mark = entry.fields.value[0][0].start_mark
    between = ", " if entry.fields.flow_style else "\n" + " " * mark.column
    return f"{text[: mark.index]}expires: {at}{between}{text[mark.index :]}"


def _end(node: yaml.Node) -> int:
    """Where the text of a node ends. A block's own mark stands after the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: Path, raw: bytes) -> None:
    """Write beside the file, and put that in its place: with its owner and mode, or for its owner alone."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            with suppress(FileNotFoundError):
                kept, made = path.stat(), os.fstat(stream.fileno())
                if (kept.st_uid, kept.st_gid) != (made.st_uid, made.st_gid):
                    os.fchown(stream.fileno(), kept.st_uid, kept.st_gid)
                os.fchmod(stream.fileno(), kept.st_mode & 0o777)
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
