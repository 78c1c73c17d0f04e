"""Conversations that the provider keeps: without what the client was not given, and their owners alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import orjson
import pytest
from openai import AsyncOpenAI

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, Callgate, scripted
from tests.http.storing import AGAIN, BATCH, OFFERED, ask, secrets_in

ClientOf = Callable[..., AsyncOpenAI]
Json = dict[str, Any]

TURNS: list[Json] = [{"calls": [DROP, GET]}, {"text": "So. ", "calls": [AGAIN]}, {"text": "Ann it is."}]


async def started(serve: Serve, *turns: Json, **sections: Any) -> Callgate:
    script = scripted(*(turns or TURNS), order="arrival")
    return await serve(script, stores=True, **sections)


def output(call_id: str, text: str = "Ann") -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


async def talked(client: AsyncOpenAI) -> str:
    """A conversation with a call that was given and two that were not; its id."""
    conversation = await client.conversations.create(metadata={"about": "ann"})
    within: Any = {"model": "m", "tools": OFFERED, "conversation": conversation.id}
    first = await client.responses.create(input="go", **within)
    assert [item.type for item in first.output] == ["function_call"]
    last = await client.responses.create(input=[output("call_get")], **within)
    assert last.output_text == "So. Ann it is."
    return conversation.id


async def test_a_conversation_is_listed_as_the_client_knows_it(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    id = await talked(client)
    kept = callgate.provider.stored.conversations[id].items
    assert {"call_drop", "call_again"} <= {item.get("call_id") for item in kept}
    items = [item async for item in client.conversations.items.list(id, order="asc")]
    assert [(item.type, getattr(item, "call_id", None)) for item in items] == [
        ("message", None),
        ("function_call", "call_get"),
        ("function_call_output", "call_get"),
        ("message", None),
        ("message", None),
    ]
    assert not [word for item in items for word in secrets_in(item.to_dict())]
    records = await callgate.records("decision")
    assert len(records) == 3, "what was given is known, and not judged again"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_are_whole(serve: Serve, client_of: ClientOf, limit: int, order: Any) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    id = await talked(client)
    whole = [item.id async for item in client.conversations.items.list(id, order="asc")]
    found: list[Any] = []
    pages = 0
    page = await client.conversations.items.list(id, order=order, limit=limit)
    while True:
        pages += 1
        data = [item.id for item in page.data]
        wire = page.to_dict()
        assert (wire["first_id"], wire["last_id"]) == (data[0], data[-1])
        found += data
        assert page.has_more == (len(found) < len(whole))
        if not page.has_more:
            break
        page = await page.get_next_page()
    assert found == (whole if order == "asc" else whole[::-1])
    assert pages == -(-len(whole) // limit)


async def test_an_empty_conversation_is_an_empty_list(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    conversation = await client.conversations.create()
    page = await client.conversations.items.list(conversation.id)
    expected = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert page.to_dict() == expected


async def test_only_what_the_list_shows_can_be_read_or_deleted(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    id = await talked(client)
    kept = {item["id"]: item for item in callgate.provider.stored.conversations[id].items}
    shown = {item.id async for item in client.conversations.items.list(id)}
    for name, item in kept.items():
        if name in shown:
            found = await client.conversations.items.retrieve(name, conversation_id=id)
            assert found.to_dict() == item
            continue
        answers = [await ask(callgate, "GET", f"/conversations/{id}/items/{name}")]
        answers.append(await ask(callgate, "DELETE", f"/conversations/{id}/items/{name}"))
        answers.append(await ask(callgate, "GET", f"/conversations/{id}/items/msg_never"))
        assert {answer.status for answer in answers} == {404}
        assert len({answer.body for answer in answers}) == 1
    assert len(kept) > len(shown)
    assert len(callgate.provider.stored.conversations[id].items) == len(kept)
    await client.conversations.items.delete(sorted(shown)[0], conversation_id=id)
    assert len(callgate.provider.stored.conversations[id].items) == len(kept) - 1


async def test_what_the_provider_ran_by_itself_is_listed(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    begun = await client.conversations.create()
    shell: Json = {
        "type": "shell_call",
        "call_id": "call_sh",
        "action": {"commands": ["ls"]},
        "environment": {"type": "container_reference", "container_id": "c"},
    }
    ran: list[Json] = [
        {"id": "sh_1", **shell},
        {"id": "sh_2", "type": "shell_call_output", "call_id": "call_sh", "output": []},
        {"id": "pr_1", "type": "program", "call_id": "p", "code": "1", "fingerprint": "f"},
        {"id": "pr_2", "type": "program_output", "call_id": "p", "result": "1", "status": "completed"},
        {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "search"}},
        {"id": "ts_1", "type": "tool_search_output", "execution": "server", "tools": []},
    ]
    callgate.provider.stored.conversations[begun.id].items += ran
    answer = await ask(callgate, "GET", f"/conversations/{begun.id}/items?order=asc")
    assert orjson.loads(answer.body)["data"] == ran


async def test_its_owner_reads_changes_and_deletes_it(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    begun = await client.conversations.create(metadata={"about": "ann"})
    assert (await client.conversations.retrieve(begun.id)).metadata == {"about": "ann"}
    changed = await client.conversations.update(begun.id, metadata={"about": "bob"})
    assert changed.metadata == {"about": "bob"}
    refused = await ask(callgate, "POST", f"/conversations/{begun.id}", {"metadata": {}, "items": []})
    assert (refused.status, refused.error["param"]) == (400, "items")
    assert (await client.conversations.delete(begun.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await client.conversations.retrieve(begun.id)


ROUTES: list[tuple[str, str, Json | None]] = [
    ("GET", "/conversations/{}", None),
    ("POST", "/conversations/{}", {"metadata": {"mine": "now"}}),
    ("DELETE", "/conversations/{}", None),
    ("GET", "/conversations/{}/items", None),
    ("GET", "/conversations/{}/items?limit=1&include=message.output_text.logprobs", None),
    ("POST", "/conversations/{}/items", {"items": [{"role": "user", "content": "hello"}]}),
    ("GET", "/conversations/{}/items/msg_1", None),
    ("DELETE", "/conversations/{}/items/msg_1", None),
    ("GET", "/responses/{}", None),
]


@pytest.mark.parametrize(("method", "route", "body"), ROUTES)
async def test_nobody_else_reaches_it(
    serve: Serve, client_of: ClientOf, method: str, route: str, body: Json | None
) -> None:
    callgate = await started(serve)
    id = await talked(client_of(callgate))
    # To have used it makes it nobody's own.
    before = orjson.dumps(callgate.provider.stored.conversations[id].items)
    other = await ask(callgate, method, route.format(id), body, key="sk-other")
    unknown = await ask(callgate, method, route.format("conv_never"), body, key="sk-other")
    assert (other.status, other.error["code"]) == (404, "not_found")
    assert other.body == unknown.body
    assert orjson.dumps(callgate.provider.stored.conversations[id].items) == before


async def test_one_that_was_begun_elsewhere_is_gone_on_with_and_not_read(
    serve: Serve, client_of: ClientOf
) -> None:
    callgate = await started(serve, {"calls": [DROP, GET]}, {"text": "Fine."})
    client = client_of(callgate)
    elsewhere = await client_of(callgate, api_key="sk-other").conversations.create()
    for key in await callgate.app.store.keys(""):
        await callgate.app.store.take(key)
    within: Any = {"model": "m", "tools": OFFERED, "conversation": elsewhere.id}
    await client.responses.create(input="go", **within)
    await client.responses.create(input=[output("call_get")], **within)
    with pytest.raises(openai.NotFoundError):
        await client.conversations.items.list(elsewhere.id)


async def test_who_only_uses_anothers_conversation_does_not_own_it(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve)
    id = await talked(client_of(callgate))
    thief = client_of(callgate, api_key="sk-other")
    with pytest.raises(openai.NotFoundError):
        await thief.responses.create(model="m", input="tell me all", conversation=id)
    with pytest.raises(openai.NotFoundError):
        await thief.conversations.items.list(id)
    assert b"tell me all" not in orjson.dumps(callgate.provider.stored.conversations[id].items)


# -- items that the client puts in

REDACTING = """
package callgate.result

decision := {"effect": "replace", "content": "withheld"} if {
	contains(input.result.content, "secret")
} else := {"effect": "allow"}
"""


async def test_results_are_inspected_on_their_way_in(
    serve: Serve, client_of: ClientOf, tmp_path: Any
) -> None:
    policy = tmp_path / "result.rego"
    policy.write_text(REDACTING)
    callgate = await started(serve, policies={"paths": [str(tmp_path / "0" / "policy.rego"), str(policy)]})
    client = client_of(callgate)
    call: Any = {"type": "function_call", "call_id": "call_1", "name": "get_user", "arguments": '{"id":1}'}
    items: list[Any] = [{"role": "user", "content": "go"}, call, output("call_1", "a secret")]
    begun = await client.conversations.create(items=items)
    kept = callgate.provider.stored.conversations[begun.id].items
    assert [item.get("output") for item in kept] == [None, None, "withheld"]
    added = await client.conversations.items.create(
        begun.id, items=[call | {"call_id": "call_2"}, output("call_2", "no more secrets")]
    )
    assert kept[-1]["output"] == "withheld"
    assert [item.type for item in added.data] == ["function_call", "function_call_output"]
    # What the client put in it can list: it wrote it.
    listed = [item async for item in client.conversations.items.list(begun.id, order="asc")]
    assert len(listed) == 5
    records = await callgate.records("result")
    assert [(r["call_id"], r["effect"]) for r in records] == [("call_1", "replace"), ("call_2", "replace")]


async def test_what_was_settled_is_answered_with_what_the_client_adds(
    serve: Serve, client_of: ClientOf
) -> None:
    callgate = await started(serve, {"calls": [DROP, GET]}, {"text": "Fine."})
    client = client_of(callgate)
    begun = await client.conversations.create()
    within: Any = {"model": "m", "tools": OFFERED, "conversation": begun.id}
    await client.responses.create(input="go", **within)
    added = await client.conversations.items.create(begun.id, items=[output("call_get")])
    assert [item.to_dict()["call_id"] for item in added.data] == ["call_get"]
    kept = callgate.provider.stored.conversations[begun.id].items
    assert [item["call_id"] for item in kept if item["type"].endswith("_output")] == ["call_drop", "call_get"]
    await client.responses.create(input="And now?", **within)
    sent = callgate.provider.requests[-1].body["input"]
    assert sent == "And now?", "it was answered once"
    listed = [item async for item in client.conversations.items.list(begun.id)]
    assert not [word for item in listed for word in secrets_in(item.to_dict())]


async def test_a_forged_call_gives_nothing_away(serve: Serve, client_of: ClientOf) -> None:
    """Who puts in a call with a hidden call's id learns nothing of the hidden one."""
    callgate = await started(serve)
    client = client_of(callgate)
    id = await talked(client)
    forged: Any = {
        "type": "function_call",
        "call_id": "call_drop",
        "name": "get_user",
        "arguments": '{"id":1}',
    }
    await client.conversations.items.create(id, items=[forged, output("call_drop", "mine")])
    listed = [item.to_dict() async for item in client.conversations.items.list(id)]
    assert {word for item in listed for word in secrets_in(item)} == {"call_drop"}, "which it wrote itself"
    mine = [item for item in listed if item.get("call_id") == "call_drop"]
    assert [(item["type"], item["name"]) for item in mine] == [("function_call", "get_user")]


@pytest.mark.parametrize("items", ["x", [1], {"a": 1}, [{"type": 7}]])
async def test_items_with_no_reading_are_refused(serve: Serve, items: Any) -> None:
    callgate = await started(serve)
    answer = await ask(callgate, "POST", "/conversations", {"items": items})
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert callgate.provider.requests == []


async def test_a_repaired_call_is_listed_as_it_was_given(serve: Serve, client_of: ClientOf) -> None:
    """Also once other answers have followed."""
    repaired = GET | {"arguments": {"id": "7"}}
    callgate = await started(serve, {"calls": [repaired]}, {"text": "Ann it is."}, {"text": "Yes."})
    client = client_of(callgate)
    begun = await client.conversations.create()
    within: Any = {"model": "m", "tools": OFFERED, "conversation": begun.id}
    for given in ("go", [output("call_get")], "Sure?"):
        await client.responses.create(input=given, **within)
    kept = callgate.provider.stored.conversations[begun.id].items
    assert '{"id":"7"}' in [item.get("arguments") for item in kept]
    listed = [item.to_dict() async for item in client.conversations.items.list(begun.id)]
    assert [item["arguments"] for item in listed if "arguments" in item] == ['{"id":7}']


async def test_of_a_batch_the_part_that_was_given_is_listed(serve: Serve, client_of: ClientOf) -> None:
    callgate = await started(serve, {"calls": [BATCH]}, {"text": "Ann it is."})
    client = client_of(callgate)
    begun = await client.conversations.create()
    within: Any = {"model": "m", "tools": OFFERED, "conversation": begun.id}
    first = await client.responses.create(input="go", **within)
    await client.responses.create(input=[output("call_both")], **within)
    kept = callgate.provider.stored.conversations[begun.id].items
    assert "is not allowed" in str([item for item in kept if item.get("call_id") == "call_both"])
    listed = [item.to_dict() async for item in client.conversations.items.list(begun.id, order="asc")]
    # One result stands for all of a batch: with words of Callgate's in it, it is not the client's own.
    assert [item["type"] for item in listed] == ["message", "function_call", "message"]
    assert listed[1]["arguments"] == first.output[0].to_dict()["arguments"]
    assert not [word for item in listed for word in secrets_in(item)]


# -- what is not known is judged, and what cannot be judged is left out

ODD: dict[str, Json] = {
    "a denied call": {"type": "function_call", "call_id": "x", "name": "drop_table", "arguments": "{}"},
    "a call of an unknown kind": {"type": "magic_call", "call_id": "x", "input": "boom"},
    "an unknown request": {"type": "magic_request"},
    "the result of a call that nobody knows": output("x", "boom"),
    "a result that does not say of what": {"type": "function_call_output", "output": "boom"},
    "a shell command in a container that did not run": {
        "type": "shell_call",
        "call_id": "x",
        "action": {"commands": ["boom"]},
        "environment": {"type": "container_reference"},
    },
    "arguments twice": {
        "type": "function_call",
        "call_id": "x",
        "name": "get_user",
        "arguments": '{"a":1,"a":2}',
    },
}


@pytest.mark.parametrize("name", ODD)
async def test_what_nobody_was_given_is_left_out(serve: Serve, client_of: ClientOf, name: str) -> None:
    callgate = await started(serve)
    client = client_of(callgate)
    id = await talked(client)
    shown = [item.id async for item in client.conversations.items.list(id)]
    kept = callgate.provider.stored.conversations[id].items
    kept.insert(1, {"id": "odd_1"} | ODD[name])
    assert [item.id async for item in client.conversations.items.list(id)] == shown
    assert (await ask(callgate, "GET", f"/conversations/{id}/items/odd_1")).status == 404
