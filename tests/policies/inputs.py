"""Policy inputs: real ones, and generated ones that the schema allows."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TOOLS = [
    "get_user",
    "get_order",
    "refund_order",
    "delete_user",
    "deploy_service",
    "send_email",
    "fetch_url",
    "x",
]
LABELS = ["untrusted", "private", "sends", "deployment"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    # As text, the embedded engine has 0 where OPA has 0.0.
    | st.floats(-1e300, 1e300, allow_nan=False).filter(lambda number: not number.is_integer())
    | st.text(max_size=8)
    | st.sampled_from(["staging", "production", "checkout", "Check-Out", "ORD-004217"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(TOOLS) | st.text(max_size=8)
parameters = st.sampled_from(["environment", "env", "service", "order_id", "amount"]) | st.text(max_size=5)
arguments = st.none() | st.dictionaries(parameters, values, max_size=4)
calls = st.fixed_dictionaries({"id": st.sampled_from(["1", "2"]), "name": names, "arguments": arguments})
past_calls = st.fixed_dictionaries(
    {"id": st.just("0"), "name": names, "arguments": values | arguments, "turn": st.integers(0, 3)}
)
labels = st.lists(st.sampled_from(LABELS) | st.text(max_size=5), max_size=4)
roles = st.lists(
    st.sampled_from(["viewer", "support", "developer", "operator", "admin", "default"]) | st.text(max_size=5),
    max_size=3,
)
approvals = st.none() | st.fixed_dictionaries(
    {"approved": st.booleans(), "calls": st.lists(st.sampled_from(["1", "2"]))}, optional={"by": st.text()}
)


def tools(name: str | None = None) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "registered": st.booleans(),
            "name": names if name is None else st.just(name),
            "effect": st.sampled_from(["read", "write", "destructive"]),
            "labels": labels,
            "references": st.dictionaries(
                parameters, st.sampled_from(["reference.services", "reference.none", ""]), max_size=2
            ),
            "tags": labels,
        }
    )


def situations(batch: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    return {
        "principal": st.fixed_dictionaries(
            {
                "id": st.text(),
                "roles": roles,
                "tenant": st.text(),
                "claims": st.dictionaries(st.text(), values),
            }
        ),
        "conversation": st.fixed_dictionaries(
            {"id": st.text(), "query": st.text(), "turn": st.integers(0, 9)}
        ),
        "model": st.sampled_from(["gpt-4o-search-preview", "sonar-pro"]) | st.text(),
        "protocol": st.sampled_from(["chat", "responses", "messages"]),
        "batch": batch,
        "history": st.fixed_dictionaries(
            {
                "calls": st.lists(past_calls, max_size=3),
                "labels": labels,
                "counts": st.dictionaries(names, st.integers(1, 9), max_size=2),
            }
        ),
        "approval": approvals,
        "time": st.just("2026-01-01T12:00:00Z"),
    }


@st.composite
def call_inputs(draw: st.DrawFn) -> dict[str, Any]:
    """Inputs of callgate.call: the call is one of its batch, and the tool is nearly always the call's."""
    call = draw(calls)
    others = draw(st.lists(calls, max_size=3))
    situation = draw(st.fixed_dictionaries(situations(st.just([call, *others]))))
    name = call["name"] if draw(st.integers(0, 9)) else None
    return {**situation, "call": call, "tool": draw(tools(name))}


hosted: dict[str, st.SearchStrategy[Any]] = {
    "hosted": st.lists(st.sampled_from(["mcp", "web_search"]) | st.text(), max_size=3),
    "hosted_tools": st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["mcp", "web_search"]), "label": st.text(), "approvable": st.booleans()}
        ),
        max_size=3,
    ),
}
tools_inputs = st.fixed_dictionaries(
    {**situations(st.just([])), **hosted, "tools": st.lists(tools(), max_size=4)}
)
request_inputs = st.fixed_dictionaries(
    {**situations(st.just([])), **hosted, "tools": st.lists(names, max_size=4)}
)
result_inputs = st.fixed_dictionaries(
    {
        **situations(st.just([])),
        "tool": tools(),
        "result": st.fixed_dictionaries(
            {"call_id": st.text(), "tool": names, "content": values, "truncated": st.booleans()}
        ),
    }
)
