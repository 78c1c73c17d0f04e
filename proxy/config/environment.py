"""Environment variables that override settings: ``CALLGATE_LISTEN__PORT=9000``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

from proxy.config.settings import Settings
from proxy.model import loads

PREFIX = "CALLGATE_"
DELIMITER = "__"

Path = tuple[str, ...]


class _Variable(EnvSettingsSource):
    """One variable, read as the settings' types ask: text as it is, sections and lists as JSON."""

    def __init__(self, name: str, value: str) -> None:
        self._variable = {name.lower(): value}
        # The settings are a plain model, so that constructing them never reads the environment.
        model = cast(type[BaseSettings], Settings)
        super().__init__(model, case_sensitive=False, env_prefix=PREFIX, env_nested_delimiter=DELIMITER)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._variable

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        return loads(value)


def overrides(environ: Mapping[str, str], faults: list[str]) -> tuple[dict[str, Any], dict[Path, str]]:
    """What the variables set, nested as in the file, and which variable set which path.

    Empty variables set nothing. Faults are added to ``faults``, never with a value: it may be a secret.
    """
    values: dict[str, Any] = {}
    origins: dict[Path, str] = {}
    for name in sorted(environ):  # a section's own variable comes before those of its keys
        path = _path(name)
        if not path or not environ[name] or not _known(name, path, faults):
            continue
        try:
            read = _Variable(name, environ[name])()
        except SettingsError:
            faults.append(f"{name}: not valid JSON (a section or a list is written as JSON here)")
            continue
        _lay(read, values)
        origins[path] = name
    return values, origins


def _path(name: str) -> Path:
    if not name.upper().startswith(PREFIX):
        return ()
    return tuple(name[len(PREFIX) :].lower().split(DELIMITER))


def _known(name: str, path: Path, faults: list[str]) -> bool:
    """Whether the variable is a setting; one that only looks like it is a fault.

    Other variables with the prefix are left alone: Kubernetes makes some for a service of that name
    (``CALLGATE_SERVICE_HOST``), and operators keep secrets in them.
    """
    sections = list(Settings.model_fields)
    if path[0] in sections:
        if len(path) > 1 and path[0] == "workers":
            faults.append(f"{name}: unknown key; workers is one number (write {PREFIX}WORKERS)")
            return False
        return True
    near = get_close_matches(path[0], sections, 1, cutoff=0.6 if len(path) > 1 else 0.8)
    if near:
        cure = DELIMITER.join((near[0], *path[1:])).upper()
        faults.append(f"{name}: unknown key; did you mean {PREFIX}{cure}?")
    elif len(path) > 1:
        faults.append(f"{name}: unknown key (known sections: {', '.join(sections)})")
    return False


def _lay(above: Mapping[str, Any], onto: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(onto.get(key), dict):
            _lay(value, onto[key])
        else:
            onto[key] = value
