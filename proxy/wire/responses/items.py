"""The items of a response: which of them make a client act, what each asks for, and how it is answered.

How policies name what an item asks for:

- ``function_call`` and ``custom_tool_call`` by their name, with the namespace before it: ``crm.lookup``;
- ``mcp_approval_request`` as ``mcp.<server label>.<tool>``;
- ``local_shell_call``, ``shell_call``, ``apply_patch_call``, ``computer_call`` and a ``tool_search_call``
  that the client answers by their tool: ``local_shell``, ``shell``, ``apply_patch``, ``computer``,
  ``tool_search``. Their arguments are the members that say what will run: ``{"action": {...}}``.
- A ``parallel`` wrapper (``proxy.wire.parallel``) is not judged itself: each of its ``tool_uses`` is, by its
  ``recipient_name``. It goes on under its own id with those of them that may run, so that the one result that
  clients send back for it is one that the provider waits for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from proxy.model import CallKind, ToolCall, dumps, loads
from proxy.wire import parallel
from proxy.wire.codec import MalformedTurn
from proxy.wire.results import said
from proxy.wire.writing import is_exact, is_unicode, write_json

Json = dict[str, Any]

TEXT_KEYS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_approval_request": "arguments"}
"""Where the items that carry their arguments as text carry it."""

TOOL_OF = {
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "apply_patch_call": "apply_patch",
    "computer_call": "computer",
    "tool_search_call": "tool_search",
}
"""The tool of the items that have no name of their own."""

_MEMBERS = {
    "local_shell_call": ("action",),
    "shell_call": ("action",),
    "apply_patch_call": ("operation",),
    "computer_call": ("action", "actions"),
    "tool_search_call": ("arguments",),
}

# What the provider says, or ran by itself before the client hears of it: governed on the request.
_PASSING = {
    "message",
    "reasoning",
    "compaction",
    "configuration_update",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_response",
    "program",
    "program_output",
    "tool_search_output",
    "additional_tools",
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "computer_call_output",
}
_ASKING_KEYS = ("arguments", "action", "actions", "operation", "input", "commands", "tool_uses")
_SUB = "#"
_TWO_NAMES = "The name of the call can be read in two ways: it holds a dot beside a namespace."
_NOT_EXECUTED = "Not executed."
_BLANK_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAA"
    "AABJRU5ErkJggg=="
)


def is_call(item: Mapping[str, Any]) -> bool:
    """Whether the item makes a client act; raises ``MalformedTurn`` for an unknown kind that might."""
    type = item.get("type")
    if not isinstance(type, str):
        raise MalformedTurn("an output item has no type")
    if type in _PASSING:
        return False
    if type == "tool_search_call":
        return item.get("execution") != "server"
    if type in TEXT_KEYS or type in TOOL_OF:
        return True
    asks = type.endswith("_call") and any(item.get(key) is not None for key in _ASKING_KEYS)
    if item.get("call_id") is not None or type.endswith("_request") or asks:
        raise MalformedTurn(f"an output item is of the kind {type[:64]!r}, which Callgate cannot judge")
    return False


def ran_elsewhere(item: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the provider ran this shell call in a container of its own: its output came with it."""
    environment = item.get("environment")
    hosted = isinstance(environment, dict) and environment.get("type") == "container_reference"
    if item.get("type") != "shell_call" or not hosted:
        return False
    answered = (o for o in outputs if o.get("type") == "shell_call_output")
    return any(output.get("call_id") == item.get("call_id") for output in answered)


def call_id(item: Mapping[str, Any]) -> str:
    """The id that a result of the item's call names."""
    id = item.get("id") if item.get("type") == "mcp_approval_request" else item.get("call_id")
    return id if isinstance(id, str) else ""


def wrapper_id(id: str) -> str:
    """The id of the wrapper that a call stands in; of any other call, its own."""
    return id.rpartition(_SUB)[0] or id


def name_of(item: Mapping[str, Any]) -> str:
    """What policies call the tool."""
    type = str(item.get("type"))
    name = item.get("name")
    own = name if isinstance(name, str) else ""
    if type in TOOL_OF:
        return TOOL_OF[type]
    if type == "mcp_approval_request":
        return f"mcp.{item.get('server_label')}.{own}"
    namespace = item.get("namespace")
    return f"{namespace}.{own}" if namespace else own


def read_calls(item: Mapping[str, Any]) -> list[ToolCall]:
    """What the item asks for: one call, or those of a ``parallel`` wrapper."""
    type, id, name = str(item.get("type")), call_id(item), name_of(item)
    if type in TOOL_OF:
        return [_structured(item, id, name)]
    text = item.get(TEXT_KEYS[type])
    if text is not None and not isinstance(text, str):
        text = write_json(text).decode()
    kind: CallKind = "custom" if type == "custom_tool_call" else "function"
    call = ToolCall.parse(id, name, text or "", kind)
    if fault := _name_fault(item):
        return [replace(call, arguments=None, fault=fault)]
    if call.name not in parallel.NAMES:
        return [call]
    return parallel.unwrapped(call, lambda at: f"{call.id}{_SUB}{at}") or [call]


def _name_fault(item: Mapping[str, Any]) -> str | None:
    name, namespace = item.get("name"), item.get("namespace")
    label = item.get("server_label")
    if not isinstance(name, str) or not name:
        return "The call has no name."
    if not all(value is None or isinstance(value, str) for value in (namespace, label)):
        return "The name of the call is not text."
    if not is_unicode(f"{namespace}{label}{name}"):
        return "The name of the call is not valid Unicode."
    return _TWO_NAMES if (namespace or label) and "." in name else None


def _structured(item: Mapping[str, Any], id: str, name: str) -> ToolCall:
    members = {key: item[key] for key in _MEMBERS[str(item["type"])] if item.get(key) is not None}
    call = ToolCall.parse(id, name, write_json(members).decode())
    if call.fault is None and not members:
        return replace(call, arguments=None, fault="The call does not say what to run.")
    if call.fault is None and not is_exact(members):
        fault = "The arguments hold a number that not every client reads alike."
        return replace(call, arguments=None, fault=fault)
    return call


def is_batch(item: Mapping[str, Any], calls: Sequence[ToolCall]) -> bool:
    """Whether these calls of an item's stand in a wrapper, which may go on with some of them."""
    return bool(calls) and calls[0].id != call_id(item)


def written(item: Json, calls: Sequence[ToolCall], arguments: Sequence[str | None]) -> Json | None:
    """The item with these arguments, one text for each of its calls; None where none of them goes on.

    A wrapper is left with the calls that do; ``arguments`` has None for the others.
    """
    if all(text is None for text in arguments):
        return None
    type = str(item["type"])
    if type in TOOL_OF:
        return {**item, **loads(arguments[0] or "")} if arguments[0] != calls[0].arguments_json else item
    key = TEXT_KEYS[type]
    if not is_batch(item, calls):
        return {**item, key: arguments[0]}
    if all(call.arguments_json == text for call, text in zip(calls, arguments, strict=True)):
        return item
    uses = zip(loads(item[key])["tool_uses"], arguments, strict=True)
    kept = [{**use, "parameters": loads(text)} for use, text in uses if text is not None]
    return {**item, key: write_json({"tool_uses": kept}).decode()}


def given_id(item: Mapping[str, Any], *seed: object) -> str:
    """An id for an item that came without one, or with one that is taken."""
    prefix = {"message": "msg", "reasoning": "rs", "custom_tool_call": "ctc"}.get(str(item.get("type")), "fc")
    text = "\0".join(map(str, (*seed, item.get("type"), item.get("call_id"), item.get("name"))))
    return f"{prefix}_{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:40]}"


# -- answering them ------------------------------------------------------------------------------


def outputs(item: Mapping[str, Any], results: Mapping[str, str]) -> list[Json]:
    """The input items that answer the item's calls with these results (by call id)."""
    type, id = str(item.get("type")), call_id(item)
    calls = read_calls(item)
    merged = is_batch(item, calls) and id not in results
    content = told_of(calls, results) if merged else results.get(id, _NOT_EXECUTED)
    caller = {"caller": item["caller"]} if item.get("caller") is not None else {}
    match type:
        case "local_shell_call":
            return [{"type": f"{type}_output", "id": id, "output": content}]
        case "shell_call":
            said = {"stdout": "", "stderr": content, "outcome": {"type": "exit", "exit_code": 1}}
            return [{"type": f"{type}_output", "call_id": id, "output": [said], **caller}]
        case "apply_patch_call":
            said = {"status": "failed", "output": content}
            return [{"type": f"{type}_output", "call_id": id, **said, **caller}]
        case "mcp_approval_request":
            answer = {"approval_request_id": id, "approve": False, "reason": content}
            return [{"type": "mcp_approval_response", **answer}]
        case "computer_call":
            # Its result can only be a picture: the words stand beside a blank one.
            checks = item.get("pending_safety_checks")
            seen = {"acknowledged_safety_checks": checks} if checks else {}
            picture = {"type": "computer_screenshot", "image_url": _BLANK_IMAGE}
            output = {"type": f"{type}_output", "call_id": id, "output": picture, **seen}
            return [output, _developer(content)]
        case "tool_search_call":
            found = {"execution": "client", "status": "completed", "tools": []}
            return [{"type": "tool_search_output", "call_id": id, **found}, _developer(content)]
        case _:
            key = "custom_tool_call_output" if type == "custom_tool_call" else "function_call_output"
            return [{"type": key, "call_id": id, "output": content, **caller}]


def _developer(content: str) -> Json:
    return {"type": "message", "role": "developer", "content": content}


def told_of(calls: Sequence[ToolCall], results: Mapping[str, str]) -> str:
    """One result for these calls of a wrapper, each beside its tool's name."""
    told = [{"recipient_name": call.name, "result": results.get(call.id, _NOT_EXECUTED)} for call in calls]
    return dumps(told).decode()


def answered_id(item: Mapping[str, Any]) -> str:
    """The id of the call that an input item answers; "" where it answers none."""
    type = item.get("type")
    if not isinstance(type, str) or type == "message":
        return ""
    if type == "mcp_approval_response":
        id = item.get("approval_request_id")
    elif type == "local_shell_call_output":
        id = item.get("call_id") or item.get("id")
    elif type.endswith("_output"):
        id = item.get("call_id")
    else:
        return ""
    return id if isinstance(id, str) else ""


def text_of(value: Any) -> str:
    """The text in a message's content, or in a result."""
    if isinstance(value, str):
        return value
    texts: list[Any] = []
    rest = [value]
    while rest:
        if isinstance(part := rest.pop(), list):
            rest += reversed(part)
        elif isinstance(part, dict):
            texts += [part.get(key) for key in ("text", "refusal", "stdout", "stderr")]
        else:
            texts.append(part)
    return "\n".join([text for text in texts if isinstance(text, str) and text])


def result_text(item: Mapping[str, Any]) -> str:
    """The text of an input item that answers a call."""
    if item.get("type") == "mcp_approval_response":
        return "approved" if item.get("approve") is True else f"declined {text_of(item.get('reason'))}"
    output = item.get("output")
    return text_of(output) if item.get("type") == "shell_call_output" else said(output)


def is_failed(item: Mapping[str, Any]) -> bool:
    """Whether the application marked a result as a failure."""
    if item.get("type") == "shell_call_output":
        parts = item.get("output")
        parts = parts if isinstance(parts, list) else []
        outcomes = [part.get("outcome") for part in parts if isinstance(part, dict)]
        return any(isinstance(o, dict) and o.get("exit_code") != 0 for o in outcomes)
    refused = item.get("type") == "mcp_approval_response" and item.get("approve") is not True
    return refused or item.get("status") in ("failed", "incomplete")


def is_partial(item: Mapping[str, Any]) -> bool:
    """Whether a result is more than its text: pictures, files."""
    output = item.get("output")
    parts = output if isinstance(output, list) else [output] if isinstance(output, dict) else []
    return any(not isinstance(p, dict) or not (p.keys() & {"text", "stdout"}) for p in parts)


def with_more(item: Json, text: str) -> Json:
    """A result with more text after its own."""
    output = item.get("output")
    if isinstance(output, list):
        return {**item, "output": [*output, {"type": "input_text", "text": text}]}
    return {**item, "output": f"{said(output)}\n{text}"}


def _outcome(item: Mapping[str, Any]) -> Any:
    """How the last of a shell call's commands ended."""
    output = item.get("output")
    parts = [part for part in output if isinstance(part, dict)] if isinstance(output, list) else []
    told = [part["outcome"] for part in parts if isinstance(part.get("outcome"), dict)]
    return told[-1] if told else {"type": "exit", "exit_code": 0}


def with_result(item: Json, text: str) -> Json:
    """A result with other text, in the shape of its kind."""
    match item.get("type"):
        case "shell_call_output":
            return {**item, "output": [{"stdout": text, "stderr": "", "outcome": _outcome(item)}]}
        case "computer_call_output":
            return {**item, "output": {"type": "computer_screenshot", "image_url": _BLANK_IMAGE}}
        case "mcp_approval_response":
            return item
        case _:
            return {**item, "output": text}
