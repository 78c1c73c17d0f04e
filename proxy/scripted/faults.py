"""What can go wrong with an answer, as a script writes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Stop(_Fault):
    after_frames: int = Field(default=2, ge=0)
    """Of a whole body, which has no frames, half is sent (with 0, nothing)."""
    after_bytes: int | None = Field(default=None, ge=0)
    """Instead of after so many frames, after so many bytes of the body."""


class Cut(_Stop):
    """The connection is closed in the middle of the body, without the end that HTTP asks for."""

    kind: Literal["cut"]


class Stall(_Stop):
    """Nothing more is sent until the client goes away."""

    kind: Literal["stall"]


class Eof(_Stop):
    """The HTTP body ends cleanly in the middle of the answer: no finish reason, no ``[DONE]``."""

    kind: Literal["eof"]


class Malformed(_Fault):
    """One frame is cut-off JSON and the stream goes on; a whole body is cut-off JSON."""

    kind: Literal["malformed"]
    after_frames: int = Field(default=1, ge=0)


class ErrorFrame(_Fault):
    """After a 200, the stream ends with an error; a whole body is that error, still with a 200."""

    kind: Literal["error_frame"]
    after_frames: int = Field(default=2, ge=0)
    message: str = "The scripted provider failed in mid-stream."
    code: str | None = None
    event: bool = False
    """Name the frame: ``event: error``."""


class Status(_Fault):
    """An HTTP error with the API's own error body."""

    kind: Literal["status"]
    status: int = Field(ge=400, le=599)
    message: str | None = None
    code: str | None = None
    retry_after_s: float | None = Field(default=None, ge=0)


class Raw(_Fault):
    """Exactly these bytes as the body: a golden stream, or an answer that no renderer would write."""

    kind: Literal["raw"]
    raw: str | bytes | tuple[str | bytes, ...]
    """A list is sent one write an element."""
    content_type: str | None = None
    status: int = Field(default=200, ge=200, le=599)

    @property
    def pieces(self) -> list[bytes]:
        parts = self.raw if isinstance(self.raw, tuple) else (self.raw,)
        return [part.encode() if isinstance(part, str) else part for part in parts]


def _with_kind(value: Any) -> Any:
    """Let ``cut`` stand for ``{kind: cut}``, and let ``raw`` or ``status`` name their kind themselves."""
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and "kind" not in value:
        kind = next((name for name in ("raw", "status") if name in value), None)
        return {**value, "kind": kind} if kind else value
    return value


ScriptedFault = Annotated[
    Annotated[Cut | Stall | Eof | Malformed | ErrorFrame | Status | Raw, Field(discriminator="kind")],
    BeforeValidator(_with_kind),
]
