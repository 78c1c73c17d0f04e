"""The tool registry: what the operator says of each tool, one YAML file a tool."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from proxy.model import OfferedTool

ToolEffect = Literal["read", "write", "destructive"]


class CacheRule(BaseModel):
    """How long, and for whom, an earlier result of a read-only tool may answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    ttl_s: float = Field(gt=0)
    scope: Literal["principal", "tenant", "global"] = "principal"
    tags: tuple[str, ...] = ()


class CallLimits(BaseModel):
    """How often one principal may call the tool."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000)
    per_hour: int | None = Field(default=None, ge=1, le=1_000_000_000)
    per_day: int | None = Field(default=None, ge=1, le=1_000_000_000)


class ConfirmRule(BaseModel):
    """How the question before a call is worded."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str = ""
    show: tuple[str, ...] = ()


class ResultRule(BaseModel):
    """What of a tool's results the model may see."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_bytes: int | None = Field(default=None, ge=256)
    shape_errors: bool | None = None
    """Whether a raw error or stack trace becomes a short message; None as for all tools."""
    redact: tuple[Literal["secrets"], ...] = ()
    patterns: tuple[str, ...] = ()
    """Regular expressions (RE2) whose matches are taken out."""
    pointers: tuple[str, ...] = ()
    """JSON pointers (RFC 6901) to what is taken out; ``*`` stands for every item of a list."""

    @field_validator("pointers")
    @classmethod
    def _pointers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [pointer for pointer in value if not pointer.startswith("/")]:
            raise ValueError(f"{wrong[0]!r} is no JSON pointer: it begins with /")
        return value


Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A definition's digest, as ``definition_digest`` writes it."""


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class ToolSpec(BaseModel):
    """One tool as the operator describes it (``schemas/tools/<name>.yaml``)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """What the model calls; of a tool in a namespace, ``namespace.name``."""
    description: str = ""
    """What it does and returns, when to use it, and what it cannot do."""
    effect: ToolEffect = "write"
    """``read`` changes nothing; ``destructive`` cannot be undone. What does not say is taken to write."""
    parameters: dict[str, Any] | None = None
    """JSON Schema 2020-12 of the arguments; without it, the application's own schema holds."""
    labels: tuple[str, ...] = ()
    """Words of the operator's own, which policies find at the tool, and in the history after its results."""
    examples: tuple[Any, ...] = ()
    """Arguments as they should be."""
    references: dict[str, str] = Field(default_factory=dict)
    """Parameter -> path into the policy data that lists its known values."""
    cache: CacheRule | None = None
    """How long, and for whom, an earlier result may answer."""
    invalidates: tuple[str, ...] = ()
    """Tags: calling the tool ends the cached results that have one of them."""
    limits: CallLimits | None = None
    """How often one principal may call the tool."""
    confirm: ConfirmRule | None = None
    """How the question before a call is worded."""
    results: ResultRule | None = None
    """What of the tool's results the model may see."""
    status: str = ""
    """What a stream says while the tool runs."""
    override: bool | None = None
    """Whether the model is shown this definition in place of the application's; None as for all tools."""
    pin: Annotated[
        tuple[Digest, ...], BeforeValidator(_listed, json_schema_input_type=Digest | tuple[Digest, ...])
    ] = ()
    """The digests of the application's own definitions that are known; none: any definition may come."""

    @field_validator("parameters")
    @classmethod
    def _an_object_schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get("type", "object") != "object":
            raise ValueError("a tool's parameters are one object: type must be 'object'")
        return value

    @classmethod
    def schema_of_files(cls) -> dict[str, Any]:
        """The JSON Schema of a registry file, for editors that complete and check it."""
        return cls.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}

    def as_policy_input(self) -> dict[str, Any]:
        """What a policy sees of the tool."""
        return {
            "registered": True,
            "name": self.name,
            "effect": self.effect,
            "labels": list(self.labels),
            "references": dict(self.references),
            "tags": list(self.cache.tags) if self.cache else [],
        }


def definition_digest(tool: OfferedTool) -> str:
    """SHA-256 over a definition as the model reads it, in canonical JSON, the same whatever the API.

    Raises ``ValueError`` for one that has no JSON, or is nested too deeply.
    """
    said = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    if tool.more:
        said["more"] = tool.more
    return f"sha256:{hashlib.sha256(_canonical(said)).hexdigest()}"


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # integers beyond 64 bits
        try:
            text = json.dumps(
                value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
        except (TypeError, RecursionError):
            raise ValueError("the definition is nested too deeply, or is no JSON") from None
        return text.encode()


def tool_input(name: str, spec: ToolSpec | None) -> dict[str, Any]:
    """What a policy sees of a tool; one that nobody described is taken to write."""
    if spec is not None:
        return spec.as_policy_input()
    return {
        "registered": False,
        "name": name,
        "effect": "write",
        "labels": [],
        "references": {},
        "tags": [],
    }


class RegistryFault(ValueError):
    """Files of the registry are wrong; ``faults`` names each with its file."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True)
class Registry:
    """The tools that the operator knows, by name."""

    specs: Mapping[str, ToolSpec] = field(default_factory=dict)
    origins: Mapping[str, Path] = field(default_factory=dict, compare=False, repr=False)
    """The file of each, where it was read from one."""

    @property
    def get(self) -> Callable[[str], ToolSpec | None]:
        """The operator's description of a name, or None: a builtin, asked for every tool of a request."""
        return self.specs.get

    @classmethod
    def load(cls, paths: Iterable[Path]) -> Registry:
        """Read every ``*.yaml`` below ``paths``; raises ``RegistryFault`` naming every fault at once."""
        specs: dict[str, ToolSpec] = {}
        origins: dict[str, Path] = {}
        faults: list[str] = []
        for file in registry_files(paths, faults):
            try:
                spec = _read(file)
            except (OSError, ValueError) as exc:
                faults.append(f"{file}: {_word(exc)}")
                continue
            if spec.name in specs:
                faults.append(f"{file}: tool {spec.name!r} is already described in {origins[spec.name]}")
                continue
            specs[spec.name], origins[spec.name] = spec, file
        if faults:
            raise RegistryFault(faults)
        return cls(specs, origins)


def registry_files(paths: Iterable[Path], faults: list[str]) -> list[Path]:
    """The files of a registry in the order in which they are read; ``faults`` gets what is not there."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            # Dot entries are a mounted ConfigMap's own bookkeeping (..data): the same files again.
            visible = [p for p in path.rglob("*.y*ml") if not any(s.startswith(".") for s in _below(p, path))]
            found.extend(sorted(visible))
        elif path.is_file():
            found.append(path)
        else:
            faults.append(f"{path}: no such file or directory")
    return found


def _below(path: Path, root: Path) -> tuple[str, ...]:
    return path.relative_to(root).parts


def _read(file: Path) -> ToolSpec:
    with file.open(encoding="utf-8") as stream:
        try:
            content = yaml.safe_load(stream)
        except yaml.YAMLError as exc:
            raise ValueError(f"not valid YAML: {exc}") from None
    if not isinstance(content, dict):
        raise ValueError("a tool is one YAML mapping with at least a name")
    return ToolSpec.model_validate(content)


def _word(exc: Exception) -> str:
    if isinstance(exc, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'tool'}: {e['msg']}" for e in exc.errors())
    return str(exc)
