"""Dataclasses whose fields nobody sets again, at no cost while requests are served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen: bool, **options: Any) -> Any:
        """As ``dataclass``; that it is frozen, the type checker sees to.

        A class that forbids assignment while it runs sets each of its own fields through a call, which makes
        an object three times as dear, and a request makes dozens. What is equal is hashed alike either way.
        """
        assert frozen, "what is not frozen is a dataclass"
        return dataclass(unsafe_hash=True, **options)


__all__ = ["value"]
