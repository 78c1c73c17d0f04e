"""Which key of the settings names a file or a secret, for faults that name only these."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from proxy.config import ConfigFault, Settings
from proxy.config.values import SecretRef, Section


def with_keys(faults: Iterable[str], settings: Settings | Section, below: str = "") -> list[str]:
    """The faults, each that begins with a place behind the keys that name it; ``below`` is the section's."""
    keys: dict[str, list[str]] = {}
    for key, path in _paths(settings, below):
        keys.setdefault(str(path), []).append(key)
    for key, secret in settings.secrets() if isinstance(settings, Settings) else ():
        keys.setdefault(secret.place, []).append(key)
    # Of several keys that name one place each told the same.
    return list(dict.fromkeys(_with_key(fault, keys) for fault in faults))


def _with_key(fault: str, keys: Mapping[str, list[str]]) -> str:
    for place, named in keys.items():
        if fault.startswith((f"{place}: ", f"{place}, line ")):
            return f"{', '.join(named)}: {fault}"
    return fault


def _paths(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield key, value
    elif isinstance(value, Section) and not isinstance(value, SecretRef):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _paths(item, f"{key}[{index}]")


def authorities(file: Path) -> ssl.SSLContext:
    """The context that trusts the authorities in a file of the settings; raises ``ConfigFault``."""
    try:
        return ssl.create_default_context(cafile=str(file))
    except ssl.SSLError:
        raise ConfigFault([f"{file}: no certificates in it (write them as PEM)"]) from None
    except OSError as exc:
        raise ConfigFault([f"{file}: {exc.strerror or exc} (name a file that can be read)"]) from None
