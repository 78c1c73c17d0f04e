"""A read that the cache may answer: what it costs to answer it, and what to forward it.

Both requests get a call of the same tool from their model. One asks for what was read before: Callgate
settles the call, asks the model again, and passes its text on. The other asks for what nobody has read.
"""

from __future__ import annotations

from typing import Any

from bench.workload import Exchange, chat, completion, opening

CACHED, FORWARDED = "bench-cached", "bench-forwarded"
"""Names of models."""
_TICKET = "99999999"
_TEXT = "Two of your orders are on their way; they will be with you on Thursday."
_RESULT = '{"customer_id":"cus_00815","profile":{"name":"A. Customer","language":"en","since":"2019-03-01"}}'


def _call(customer: str) -> dict[str, Any]:
    function = {"name": "get_customer", "arguments": f'{{"customer_id":"{customer}","sections":["profile"]}}'}
    return {"id": "call_read0001", "type": "function", "function": function}


_CALL = _call("cus_00815")
CALLING = completion(None, [_CALL])
"""The model asks for what is kept."""
SAYING = completion(_TEXT)
"""The model has the result, and answers."""
FORWARDING = completion(None, [_call("cus_00816")])
"""The model asks for what no result ever came back for."""
_SAID = f'"{_TEXT}"'.encode()


def primers() -> tuple[Exchange, Exchange]:
    """What brings a result into the cache: the call is forwarded, and the application returns with it."""
    begun = opening(_TICKET)
    returned = [
        *begun,
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": _CALL["id"], "content": _RESULT},
    ]
    return (
        chat("first read", CACHED, begun, CALLING),
        chat("first result", CACHED, returned, SAYING),
    )


def cached() -> Exchange:
    """A request whose model asks for a read that the cache answers, and then speaks."""
    return chat("cached answer", CACHED, opening(), b"}", holds=_SAID)


def forwarded() -> Exchange:
    """A request whose model asks for a read that goes to the application."""
    return chat("forwarded read", FORWARDED, opening(), FORWARDING)
