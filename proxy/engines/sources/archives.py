"""A gzipped tar archive from anywhere, read into memory within bounds. Nothing is written to disk.

It is read here, and not by a library: what is needed is small, and an archive that was written to hurt its
reader finds no link, no sparse file, no unbounded header and no pattern matching to hurt it with.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

MAX_UNPACKED_BYTES = 64 << 20
MAX_FILE_BYTES = 16 << 20
MAX_ENTRIES = 10_000
MAX_NAME = 1024
# Names become the places of data, and what nests too deep has no form that every engine reads.
MAX_NAME_DEPTH = 25

_BLOCK = 512
_EMPTY_BLOCK = bytes(_BLOCK)
_MAX_HEADER_BYTES = 1 << 20
_FILE, _OLD_FILE, _FOLDER = b"0", b"\0", b"5"
_LONG_NAME, _EXTENDED, _EXTENDED_FOR_ALL = b"L", b"x", b"g"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}
_OCTAL = re.compile(rb"[0-7]{1,12}")


class ArchiveFault(ValueError):
    """The archive cannot be taken, with the reason for the operator."""


def unpacked(
    content: bytes,
    *,
    max_bytes: int = MAX_UNPACKED_BYTES,
    max_file_bytes: int = MAX_FILE_BYTES,
    max_entries: int = MAX_ENTRIES,
) -> dict[str, bytes]:
    """The files of a ``.tar.gz`` by their names, without the leading ``/`` or ``./`` that some write.

    Raises ``ArchiveFault`` for an archive that is cut, too large, or holds anything but plain files and
    folders with plain names, each once.
    """
    files: dict[str, bytes] = {}
    for count, (name, kind, body) in enumerate(_entries(_decompressed(content, max_bytes)), 1):
        if count > max_entries:
            raise ArchiveFault(f"holds more than {max_entries} entries")
        path = _checked(name, kind)
        if kind == _FOLDER:
            continue
        if len(body) > max_file_bytes:
            raise ArchiveFault(f"{shown(path)} is larger than {max_file_bytes} bytes")
        if path in files:
            raise ArchiveFault(f"{shown(path)} is in it twice, and readers may choose either")
        files[path] = bytes(body)
    return files


def shown(name: str) -> str:
    """A name that someone else wrote, for a message."""
    return repr(name if len(name) <= 100 else name[:100] + "...")


def _decompressed(content: bytes, max_bytes: int) -> bytes:
    inflating = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = inflating.decompress(content, max_bytes + 1)
    except zlib.error as exc:
        raise ArchiveFault(f"not a whole gzip file ({exc})") from None
    if len(plain) > max_bytes:
        raise ArchiveFault(f"larger than {max_bytes} bytes when it is unpacked")
    if not inflating.eof:
        raise ArchiveFault("not a whole gzip file: it is cut off")
    if inflating.unused_data.strip(b"\0"):
        raise ArchiveFault("something follows the end of the gzip file")
    return plain


def _entries(tar: bytes) -> Iterator[tuple[str, bytes, memoryview]]:
    """Name, kind and body of each entry, with the long names of GNU and POSIX (pax) archives."""
    view, at, long_name = memoryview(tar), 0, None
    while True:
        header = tar[at : at + _BLOCK]
        if len(header) < _BLOCK:
            raise ArchiveFault("not a whole tar archive: its end is missing")
        if header == _EMPTY_BLOCK:
            if tar[at:].strip(b"\0"):
                raise ArchiveFault("something follows the end of the tar archive")
            return
        kind, size = header[156:157], _size(header)
        body = view[at + _BLOCK : at + _BLOCK + size]
        if len(body) < size:
            raise ArchiveFault("not a whole tar archive: it is cut off")
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
        if kind in (_LONG_NAME, _EXTENDED, _EXTENDED_FOR_ALL):
            long_name = _extended(kind, body) or long_name
            continue
        yield long_name or _name(header), kind, body
        long_name = None


def _size(header: bytes) -> int:
    checksum = _number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 0x20 != checksum:
        raise ArchiveFault("not a tar archive: a header's checksum is wrong")
    return _number(header[124:136])


def _number(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.fullmatch(digits):
        raise ArchiveFault("not a tar archive that can be read: a size is no octal number")
    return int(digits, 8)


def _name(header: bytes) -> str:
    name = _text(header[:100].partition(b"\0")[0])
    # Only POSIX archives keep the beginning of a name here; old GNU ones keep times in its place.
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return f"{_text(prefix)}/{name}" if prefix else name


def _extended(kind: bytes, body: memoryview) -> str | None:
    """The name that an extended header gives the next entry, if it gives one."""
    if len(body) > _MAX_HEADER_BYTES:
        raise ArchiveFault("an extended header is too large")
    if kind == _LONG_NAME:
        return _text(bytes(body).rstrip(b"\0"))
    given = dict(_records(bytes(body)))
    if any(key == b"size" or key.startswith(b"GNU.sparse") for key in given):
        raise ArchiveFault("an extended header changes sizes: write a plain tar archive")
    name = given.get(b"path")
    if kind == _EXTENDED_FOR_ALL and name is not None:
        raise ArchiveFault("an extended header gives all entries one name")
    return None if name is None else _text(name)


def _records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a pax header: ``LENGTH KEY=VALUE\\n``, where the length counts the whole record."""
    at = 0
    while at < len(body):
        digits = body[at : at + 8].partition(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = body[at + len(digits) + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if length <= len(digits) + 1 or at + length > len(body) or not equals or value[-1:] != b"\n":
            raise ArchiveFault("an extended header cannot be read")
        yield key, value[:-1]
        at += length


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ArchiveFault(f"the name {name[:100]!r} is not UTF-8 text") from None


def _checked(name: str, kind: bytes) -> str:
    """The path within the archive that an entry's name stands for."""
    if kind not in (_FILE, _OLD_FILE, _FOLDER):
        raise ArchiveFault(f"{shown(name)} is {_KINDS.get(kind, 'neither a file nor a folder')}")
    if kind != _FOLDER and name.endswith("/"):
        raise ArchiveFault(f"{shown(name)} is named as a folder and is none")
    path = name.removesuffix("/").removeprefix("./" if name.startswith("./") else "/")
    if kind == _FOLDER and path in ("", "."):
        return path
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ArchiveFault(f"the name {shown(name)} is no plain path below the archive's root")
    if not path.isprintable() or len(path) > MAX_NAME or len(parts) > MAX_NAME_DEPTH:
        raise ArchiveFault(f"the name {shown(name)} is too long, too deep, or not printable")
    return path
