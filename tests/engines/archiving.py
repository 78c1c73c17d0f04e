"""Archives for the tests: plain ones, and ones that nobody should take."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping

Entry = tarfile.TarInfo | str


def tar(entries: Iterable[tuple[Entry, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar archive with these entries in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=format) as writer:
        for entry, content in entries:
            info = tarfile.TarInfo(entry) if isinstance(entry, str) else entry
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """A bundle of these files."""
    content = tar((name, text.encode() if isinstance(text, str) else text) for name, text in files.items())
    return gzip.compress(content, mtime=0)


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """An entry of a kind of its own."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info
