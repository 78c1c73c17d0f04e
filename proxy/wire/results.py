"""What a tool result says, in whatever shape it is written."""

from __future__ import annotations

from typing import Any

from proxy.model import dumps

_MEDIA = frozenset(
    {
        *("image", "image_url", "input_image", "computer_screenshot", "audio", "input_audio"),
        *("video", "video_url", "file", "input_file"),
    }
)
_PLAIN = frozenset({"type", "text", "cache_control"})


def said(content: Any) -> str:
    """All that a result's content says: its text, or all of it as JSON where text stands elsewhere too.

    Pictures, sounds and files are left out, whether they are here or only referred to.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        return "" if _is_media(content) else dumps(content).decode()
    parts = [part for part in content if not _is_media(part)]
    if all(_is_plain(part) for part in parts):
        return "\n".join(part["text"] for part in parts)
    return dumps(parts).decode()


def _is_plain(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str) and part.keys() <= _PLAIN


def _is_media(part: Any) -> bool:
    if not isinstance(part, dict):
        return False
    kind, source = part.get("type"), part.get("source")
    held_elsewhere = isinstance(source, dict) and source.get("type") in ("base64", "url", "file")
    return (isinstance(kind, str) and kind in _MEDIA) or held_elsewhere
