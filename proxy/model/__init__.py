"""The neutral words: what is asked, what is answered; and the one strict JSON reading."""

from proxy.model.lazy import lazy
from proxy.model.requests import (
    History,
    HostedTool,
    OfferedTool,
    PastCall,
    PastResult,
    Principal,
    Request,
    brief,
)
from proxy.model.strict import (
    MAX_SAFE_INTEGER,
    Fault,
    dumps,
    has_duplicate_keys,
    loads,
    loads_frame,
    unsafe_integer,
)
from proxy.model.turns import (
    CallKind,
    Event,
    Failure,
    Passage,
    Slot,
    ToolCall,
    ToolResult,
    Turn,
    Usage,
)

__all__ = [
    "MAX_SAFE_INTEGER",
    "CallKind",
    "Event",
    "Failure",
    "Fault",
    "History",
    "HostedTool",
    "OfferedTool",
    "Passage",
    "PastCall",
    "PastResult",
    "Principal",
    "Request",
    "Slot",
    "ToolCall",
    "ToolResult",
    "Turn",
    "Usage",
    "brief",
    "dumps",
    "has_duplicate_keys",
    "lazy",
    "loads",
    "loads_frame",
    "unsafe_integer",
]
