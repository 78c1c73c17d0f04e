"""The tool registry: what the operator says of each tool, one YAML file a tool."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

from proxy import strict_yaml
from proxy.model import OfferedTool
from proxy.strict_yaml import YamlFault

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


_TRUTHS_OF_1_1 = frozenset({"yes", "no", "on", "off"})


def _no_truth(schema: Any) -> str | None:
    """A value of a boolean in a schema that only YAML 1.1 reads as one: nothing would ever equal it."""
    waiting, seen = [schema], set[int]()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, dict | list) or id(value) in seen:
            continue
        seen.add(id(value))
        waiting.extend(value.values() if isinstance(value, dict) else value)
        if isinstance(value, dict) and value.get("type") in ("boolean", ["boolean"]):
            enum = value.get("enum")
            for one in (value.get("const"), *(enum if isinstance(enum, list) else ())):
                if isinstance(one, str) and one.lower() in _TRUTHS_OF_1_1:
                    return one
    return None


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
        if (word := _no_truth(value)) is not None:
            raise ValueError(f"{word!r} is text, and stands where a boolean is meant: write true or false")
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
            spec = _read(file, faults)
            if spec is None:
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


def _read(file: Path, faults: list[str]) -> ToolSpec | None:
    try:
        content, duplicates = strict_yaml.read(file.read_bytes())
        faults.extend(duplicate.at(file) for duplicate in duplicates)
        if not isinstance(content, dict):
            raise YamlFault("a tool is one YAML mapping with at least a name")
        return ToolSpec.model_validate(content)
    except YamlFault as exc:
        faults.append(exc.at(file))
    except ValidationError as exc:
        faults.append(f"{file}: {worded(exc)}")
    except OSError as exc:
        faults.append(f"{file}: {exc.strerror or exc} (name files that can be read)")
    return None


def worded(exc: ValidationError) -> str:
    """What is wrong with a description of a tool, each fault with its place in it."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'tool'}: {_problem(e)}" for e in exc.errors())


def _problem(error: ErrorDetails) -> str:
    if error["type"] != "extra_forbidden":
        return error["msg"].removeprefix("Value error, ")
    model: Any = ToolSpec
    for step in error["loc"][:-1]:
        model = _RULES.get(str(step), model)
    near = get_close_matches(str(error["loc"][-1]), model.model_fields, 1, cutoff=0.5)
    known = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(model.model_fields)}"
    return f"unknown key; {known}"


_RULES = {"cache": CacheRule, "limits": CallLimits, "confirm": ConfirmRule, "results": ResultRule}
