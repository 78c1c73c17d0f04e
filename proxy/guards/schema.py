"""The schema guard: a call must be of a tool that was offered, with arguments that fit its schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from proxy.guards._coercion import Change, applied, changes
from proxy.guards._naming import clip, quoted, subject, suggestion
from proxy.guards._validators import Compiled, SchemaRefused, TooLarge, Validators
from proxy.guards._wording import Problem, problems, refusal, unknown
from proxy.guards.base import Context
from proxy.model import ToolCall
from proxy.tools import ToolSpec
from proxy.verdicts import Allow, Deny, Reask, Repair, Verdict

_ALLOW = Allow()
_TOO_LARGE = (
    "The arguments would take too long to check against the tool's schema: make them shorter, or less nested."
)
_MAX_NAMES = 10
_MAX_REASON_BYTES = 720
_MAX_REASONS = 8


def schema_fault(schema: Any) -> str | None:
    """Why a tool's schema could not judge a call, to go on after 'the schema'; None where it can."""
    try:
        Validators(1).get(schema)
    except SchemaRefused as exc:
        return str(exc)
    return None


class SchemaGuard:
    """Allows calls whose arguments are valid; repairs what is only spelled wrong; asks again for the rest.

    The operator's schema (JSON Schema 2020-12, or the draft that its ``$schema`` names) holds before the
    application's. A schema that is invalid, or too costly to check, denies.
    """

    name: ClassVar[str] = "schema"

    def __init__(
        self,
        unregistered: Literal["allow", "validate", "deny"] = "validate",
        coerce: bool = True,
        unknown_parameters: Literal["refuse", "allow"] = "refuse",
        max_schemas: int = 4096,
    ) -> None:
        self._unregistered = unregistered
        self._coerce = coerce
        self._refuse_unknown = unknown_parameters == "refuse"
        self._validators = Validators(max_schemas)
        # The operator's schemas live long: found by identity, which the kept reference keeps unique.
        self._registered: dict[int, tuple[Any, Compiled]] = {}
        self._max_registered = max_schemas

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        """This guard's word on the call; never raises, whatever the arguments or the schema are."""
        spec, offered = ctx.spec, ctx.offered
        if call.fault is not None:
            return Reask(reasons=(clip(call.fault, _MAX_REASON_BYTES),))
        if offered is None:
            return _unknown_tool(call.name, list(ctx.situation.request.tools))
        if spec is None and self._unregistered != "validate":
            return _ALLOW if self._unregistered == "allow" else _not_registered(call.name)
        if call.kind == "custom":
            if offered.kind == "function":
                return Reask(reasons=(f"The tool {quoted(call.name)} takes a JSON object, not free text.",))
            return _ALLOW
        schema = offered.parameters if spec is None or spec.parameters is None else spec.parameters
        if call.arguments is None:
            return Reask(reasons=("The arguments have no reading.",))
        if schema is None:
            return _ALLOW
        try:
            compiled = self._compiled(schema, spec)
            return self._judge(call, call.arguments, compiled)
        except SchemaRefused as exc:
            return Deny(reasons=(f"The tool's schema {exc}.",))
        except TooLarge:
            return Reask(reasons=(_TOO_LARGE,))

    def _compiled(self, schema: Any, spec: ToolSpec | None) -> Compiled:
        if spec is None or schema is not spec.parameters:
            return self._validators.get(schema)
        known = self._registered.get(id(schema))
        if known is None:
            if len(self._registered) >= self._max_registered:
                self._registered.clear()
            known = self._registered[id(schema)] = schema, self._validators.get(schema)
        return known[1]

    def _judge(self, call: ToolCall, arguments: dict[str, Any], compiled: Compiled) -> Verdict:
        text = call.arguments_json
        length = len(text) if text.isascii() else 4 * len(text)
        closed = compiled.parameters if self._refuse_unknown else None
        is_known = closed is None or arguments.keys() <= closed
        if compiled.accepts(arguments, length) and is_known:
            return _ALLOW
        errors = compiled.errors(arguments, length)
        if self._coerce and is_known and (found := changes(errors)):
            repaired = applied(arguments, found)
            if self._holds(call, repaired, compiled):
                return Repair(arguments=repaired, reasons=_coerced(found))
        strangers = sorted(arguments.keys() - closed)[:_MAX_REASONS] if closed else []
        found_wrong = [unknown((), name, closed or ()) for name in strangers]
        return _reask(found_wrong + problems(errors, compiled.schema))

    @staticmethod
    def _holds(call: ToolCall, repaired: dict[str, Any], compiled: Compiled) -> bool:
        # Text that was unfolded may hold what no call may: judge it as if it had been written so.
        written = call.with_arguments(repaired)
        again = ToolCall.parse(call.id, call.name, written.arguments_json)
        try:
            return again.fault is None and compiled.accepts(repaired, 4 * len(written.arguments_json))
        except TooLarge:
            return False


def _reask(found: Sequence[Problem]) -> Reask:
    if not found:
        return Reask(
            reasons=("The arguments do not match the tool's schema, and are too large to say where.",)
        )
    reason, details = refusal(found)
    return Reask(reasons=(reason,), details=details)


def _coerced(found: Sequence[Change]) -> tuple[str, ...]:
    return tuple(f"{subject(path)} coerced from string to {name}" for path, name, _ in found[:_MAX_REASONS])


def _not_registered(name: str) -> Deny:
    return Deny(reasons=(f"The tool {quoted(name)} is not registered.",))


def _unknown_tool(name: str, offered: Sequence[str]) -> Reask:
    reason = f"There is no tool {quoted(name)}{_instead(name, offered)}"
    return Reask(type="unknown_tool", reasons=(clip(reason, _MAX_REASON_BYTES),))


def _instead(name: str, offered: Sequence[str]) -> str:
    if not offered:
        return ". No tools are available."
    if hint := suggestion(name, offered):
        return hint
    shown = ", ".join(quoted(other) for other in offered[:_MAX_NAMES])
    more = f" and {len(offered) - _MAX_NAMES} more" if len(offered) > _MAX_NAMES else ""
    return f". Available tools: {shown}{more}."
