"""Read the settings: the YAML file, then the environment; every fault at once, each with its path."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy import strict_yaml
from proxy.config.environment import overrides
from proxy.config.faults import worded
from proxy.config.settings import Settings
from proxy.config.values import ConfigFault
from proxy.strict_yaml import YamlFault


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in ``path`` (none: the defaults), overridden by ``environ`` (none: the process's own).

    Relative paths in them are taken from the file's folder. Raises ``ConfigFault`` naming every fault.
    """
    faults: list[str] = []
    content = _read(path, faults) if path is not None else {}
    from_environment, origins = overrides(os.environ if environ is None else environ, faults)
    content = _merged(content, from_environment)
    settings = None
    try:
        settings = Settings.model_validate(content)
    except ValidationError as exc:
        faults.extend(worded(exc, content, origins))
    if faults or settings is None:
        raise ConfigFault(faults) from None
    return settings.within(path.parent if path is not None else Path())


def _read(path: Path, faults: list[str]) -> dict[str, Any]:
    """The file's content; what keeps it from being read at all is raised, duplicate keys are added."""
    try:
        content, duplicates = strict_yaml.read(path.read_bytes())
    except OSError as exc:
        raise ConfigFault([f"{path}: {exc.strerror or exc} (name a file that can be read)"]) from None
    except YamlFault as exc:
        raise ConfigFault([exc.at(path)]) from None
    if content is not None and not isinstance(content, dict):
        raise ConfigFault([f"{path}: not a mapping (write the settings as key: value)"])
    faults.extend(duplicate.at(path) for duplicate in duplicates)
    return content or {}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key; of everything else, what is above counts."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        merged[key] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return merged
