"""The script format: what the scripted provider answers, turn by turn, in no API's own words."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from proxy import strict_yaml
from proxy.model import dumps
from proxy.scripted.expect import Expect
from proxy.scripted.faults import ScriptedFault
from proxy.strict_yaml import YamlFault

Deviation = Literal[
    "all_index_zero",
    "azure_prompt_filter_first",
    "comments",
    "cr",
    "crlf",
    "empty_id",
    "empty_id_later",
    "empty_name_later",
    "empty_tool_calls_list",
    "finish_null",
    "finish_stop",
    "finish_with_last_delta",
    "index_from_one",
    "interleaved",
    "legacy_function_call",
    "missing_arguments",
    "missing_id",
    "missing_index",
    "missing_type",
    "multiline_data",
    "name_in_pieces",
    "name_repeated",
    "negative_index",
    "no_done",
    "no_space_after_data",
    "null_arguments",
    "null_id",
    "null_index",
    "role_with_first_call",
    "tool_calls_null",
    "two_calls_one_delta",
    "two_finishes",
    "usage_in_finish_chunk",
    "usage_without_choices",
    "utf16_cuts",
    "whole_call_one_delta",
]
"""A way in which some provider's answers differ from OpenAI's; see docs/scripted-provider.md."""


class ScriptError(ValueError):
    """A script cannot be read or played; the message says where and why."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptedCall(_Part):
    """One tool call that the model makes."""

    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    """An object is written compactly; a string goes out as it is, and need not be JSON."""
    kind: Literal["function", "custom"] = "function"
    input: str = ""
    """The free text of a ``custom`` call."""
    id: str | None = None
    """Without it, an id that depends only on the script, the turn and the call's place."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further members of the call on the wire, such as ``extra_content``."""

    @model_validator(mode="after")
    def _one_payload(self) -> ScriptedCall:
        foreign = "arguments" if self.kind == "custom" else "input"
        if foreign in self.model_fields_set:
            raise ValueError(f"a {self.kind} call has no {foreign!r}")
        return self

    @property
    def payload(self) -> str:
        """The text that the model writes: the arguments' JSON, or a custom call's input."""
        if self.kind == "custom":
            return self.input
        return self.arguments if isinstance(self.arguments, str) else dumps(self.arguments).decode()


class ScriptedChoice(_Part):
    """One of the answers that a response offers."""

    text: str | None = None
    text_chunks: int | None = Field(default=None, ge=1, le=100_000)
    """Bulk: ``text`` (or ``word ``) this many times over, each in a frame of its own."""
    calls: tuple[ScriptedCall, ...] = ()
    reasoning: str = ""
    finish: str | None = None
    """Instead of the finish reason that fits; ``null`` and ``""`` are sent as they are."""

    @property
    def whole_text(self) -> str | None:
        """The text in one piece, or None where there is none."""
        return self.text if self.text_chunks is None else (self.text or "word ") * self.text_chunks

    def finish_or(self, fitting: str) -> str | None:
        """The finish reason that the script names, or else ``fitting``."""
        return self.finish if "finish" in self.model_fields_set else fitting


class ScriptedUsage(_Part):
    """Tokens counted for a turn."""

    input: int = Field(default=20, ge=0)
    output: int = Field(default=10, ge=0)


class ScriptedTurn(ScriptedChoice):
    """One answer of the model, how it is sent and what goes wrong with it."""

    choices: tuple[ScriptedChoice, ...] = ()
    """Several answers at once (``n`` > 1), instead of the turn's own text and calls."""
    usage: ScriptedUsage | None = ScriptedUsage()
    chunk_chars: int = Field(default=12, ge=1)
    """How many characters of text or arguments go into one frame."""
    delay_ms: float = Field(default=0, ge=0)
    gap_ms: float = Field(default=0, ge=0)
    burst: bool = False
    """The whole body in one write, instead of one write a frame."""
    write_bytes: int | None = Field(default=None, ge=1)
    """Writes of this many bytes, wherever they cut frames and characters."""
    encoding: Literal["gzip", "deflate"] | None = None
    deviations: frozenset[Deviation] = frozenset()
    fault: ScriptedFault | None = None
    expect: Expect | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> ScriptedTurn:
        own = self.model_fields_set & ScriptedChoice.model_fields.keys()
        if self.choices and own:
            raise ValueError(f"with 'choices', {sorted(own)} belong to each choice")
        if {"cr", "crlf"} <= self.deviations:
            raise ValueError("lines end either in 'cr' or in 'crlf'")
        return self

    @property
    def all_choices(self) -> Sequence[ScriptedChoice]:
        """The turn's choices; a turn without any is its own one choice."""
        return self.choices or (self,)


class Script(_Part):
    """The turns that a model of this name plays."""

    model: str = Field(min_length=1)
    """The request's ``model``; ``*`` plays for every name that no other script has."""
    turns: tuple[ScriptedTurn, ...] = Field(min_length=1)
    order: Literal["history", "arrival"] = "history"
    """The turn after those that the request's own history holds, or one turn a request as they arrive."""

    @classmethod
    def of(
        cls,
        model: str,
        turns: Sequence[ScriptedTurn | Mapping[str, Any]],
        order: Literal["history", "arrival"] = "history",
    ) -> Script:
        """A script out of turns or their mappings; ScriptError names what is wrong with them."""
        try:
            return cls.model_validate({"model": model, "turns": list(turns), "order": order})
        except ValidationError as exc:
            raise ScriptError(f"script {model!r}: {_every_fault(exc)}") from exc


@dataclass(frozen=True, slots=True)
class Played:
    """A script's turn number ``number``, from 0: past the last turn, the last again."""

    script: Script
    number: int

    @property
    def turn(self) -> ScriptedTurn:
        return self.script.turns[min(self.number, len(self.script.turns) - 1)]

    def token(self, *what: object) -> str:
        """32 hex digits, the same whenever this turn is played, for ids that must not collide."""
        parts = "\0".join(map(str, (self.script.model, self.number, *what)))
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


class _ScriptFile(_Part):
    scripts: tuple[Script, ...] = Field(min_length=1)


def load_scripts(path: str | Path) -> tuple[Script, ...]:
    """Read a YAML file of scripts; ScriptError names the file and every fault's place in it."""
    try:
        content = strict_yaml.load(Path(path).read_bytes())
        return _ScriptFile.model_validate(content).scripts
    except OSError as exc:
        raise ScriptError(f"{path}: {exc.strerror}") from exc
    except YamlFault as exc:
        raise ScriptError(exc.at(path)) from exc
    except ValidationError as exc:
        raise ScriptError(f"{path}: {_every_fault(exc)}") from exc


def _every_fault(exc: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
