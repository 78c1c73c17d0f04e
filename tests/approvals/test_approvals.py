"""Confirmation in the conversation and out of band: what is asked, who may answer, and that it runs once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.approvals import Approvals, word_question
from proxy.model import ToolCall
from proxy.ports import Unavailable
from proxy.stores.memory import MemoryStore
from tests.core.harness import Outcome, World, run
from tests.core.view import Answer, read

CONFIRM = {"delete_user": {"effect": "confirm", "reasons": ["delete_user is destructive"]}}
DELETE = {"name": "delete_user", "arguments": {"user_id": 42}, "id": "call_del"}
CASE: dict[str, Any] = {
    "request": {"tools": ["delete_user", "get_user"]},
    "policy": CONFIRM,
    "upstream": [{"text": "I will delete the user. ", "calls": [DELETE]}, {"text": "As you wish."}],
}
CODE = re.compile(r'"approve ([A-Z2-9]{6})"')
STREAM_OR_BODY = pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])


class Conversation:
    """One user's conversation: what was said, and what came back."""

    def __init__(self, stream: bool, world: World | None = None, **changes: Any) -> None:
        self.case = CASE | changes
        self.stream, self.world = stream, world or World()
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": "Delete user 42."}]

    async def ask(self) -> tuple[Outcome, Answer]:
        request = {**self.case["request"], "messages": self.messages}
        outcome = await run({**self.case, "request": request}, self.stream, world=self.world)
        return outcome, read(outcome.client.data, self.stream and outcome.client.status == 200)

    async def held(self) -> str:
        """Ask, and get the question; returns its code."""
        outcome, answer = await self.ask()
        assert (answer.first.calls, answer.first.finish) == ([], "stop")
        assert outcome.exchange.outcome == "held"
        assert b"call_del" not in outcome.client.data
        self.messages.append({"role": "assistant", "content": answer.first.text})
        found = CODE.search(answer.first.text)
        assert found, answer.first.text
        return found[1]

    def say(self, text: str) -> Conversation:
        self.messages.append({"role": "user", "content": text})
        return self


def released(answer: Answer) -> list[tuple[str, str]]:
    return [(call["id"], call["arguments"]) for call in answer.first.calls]


@STREAM_OR_BODY
async def test_the_question_shows_exactly_what_will_run(stream: bool) -> None:
    talk = Conversation(stream)
    code = await talk.held()
    said = talk.messages[-1]["content"]
    assert said == (
        "I will delete the user. \n\nConfirmation needed before delete_user runs with: user_id = 42. "
        f'Reply "approve {code}" to run exactly this, or "decline {code}".'
    )


HOW_TO_ANSWER = [
    (("code", "yes"), 'Reply "approve {}" to run exactly this, or "decline {}".', ["approve {}", "yes"]),
    (("code",), 'Reply "approve {}" to run exactly this, or "decline {}".', ["approve {}"]),
    (("yes",), 'Reply "yes" to run exactly this, or "decline {}".', ["yes"]),
    ((), 'It waits for an operator\'s approval (ticket {}); reply "decline {}" to decline.', []),
]


@pytest.mark.parametrize("words", ["approve {}", "yes", "decline {}"])
@pytest.mark.parametrize(("accept", "asked", "approving"), HOW_TO_ANSWER)
async def test_the_question_names_an_answer_that_counts(
    accept: tuple[str, ...], asked: str, approving: list[str], words: str
) -> None:
    talk = Conversation(False, World(approvals={"accept": accept}))
    _, answer = await talk.ask()
    text = answer.first.text
    (ticket,) = await Approvals(talk.world.store).list()
    assert text.endswith(f"user_id = 42. {asked.format(*[ticket.code] * asked.count('{}'))}")
    talk.messages.append({"role": "assistant", "content": text})
    outcome, answer = await talk.say(words.format(ticket.code)).ask()
    assert (released(answer) != []) == (words in approving)
    events = [getattr(record, "event", "") for record in outcome.records]
    assert ("declined" in events) == words.startswith("decline")


def test_a_question_about_several_calls_waits_in_good_grammar() -> None:
    calls = [(ToolCall.parse(name, name, "{}"), None) for name in "ab"]
    said = word_question("ABCDEF", calls, ())
    assert said.endswith(
        "2. b runs.\n They wait for an operator's approval (ticket ABCDEF); reply "
        '"decline ABCDEF" to decline.'
    )


@STREAM_OR_BODY
@pytest.mark.parametrize("words", ["approve {code}", "Approve {lower}, please", "yes", "Yes!", "go ahead"])
async def test_an_approval_releases_the_held_call_without_asking_the_model(stream: bool, words: str) -> None:
    talk = Conversation(stream)
    code = await talk.held()
    outcome, answer = await talk.say(words.format(code=code, lower=code.lower())).ask()
    assert released(answer) == [("call_del", '{"user_id":42}')]
    assert answer.first.finish == "tool_calls"
    assert outcome.upstream.asks == []
    assert outcome.engine.inputs[0]["approval"]["calls"] == ["call_del"]
    events = [(r.event, r.by) for r in outcome.records if r.kind == "ticket"]
    assert events == [("approved", "user")]


@STREAM_OR_BODY
@pytest.mark.parametrize("words", ["decline {code}", "no", "Cancel."])
async def test_a_refusal_settles_the_call_and_the_model_goes_on(stream: bool, words: str) -> None:
    talk = Conversation(
        stream, upstream=[*CASE["upstream"][:1], {"text": "unused"}, {"text": "Not deleted."}]
    )
    code = await talk.held()
    outcome, answer = await talk.say(words.format(code=code)).ask()
    assert (answer.first.text, answer.first.calls) == ("Not deleted.", [])
    sent = outcome.upstream.asks[0].body
    assert b"declined" in sent
    assert b"call_del" in sent
    assert [(r.verdict, r.guard) for r in outcome.decisions] == [("Deny", "approvals")]


@pytest.mark.parametrize(
    "words",
    ["approve AAAAAA", "yes but why?", "What would happen?", "approve", "yesterday", "decline AAAAAA"],
)
async def test_anything_else_leaves_the_ticket_open(words: str) -> None:
    talk = Conversation(False)
    code = await talk.held()
    _, answer = await talk.say(words).ask()
    if not re.fullmatch("approve", words):
        assert answer.first.text == "As you wish."
        assert released(answer) == []
    again = Conversation(False, talk.world)
    again.messages = [*talk.messages[:-1], {"role": "user", "content": f"approve {code}"}]
    _, answer = await again.ask()
    assert (released(answer) != []) == (words != "approve")


async def test_a_ticket_is_used_once_under_a_hundred_concurrent_approvals() -> None:
    talk = Conversation(False)
    code = await talk.held()
    talk.say(f"approve {code}")
    answers = [answer for _, answer in await asyncio.gather(*(talk.ask() for _ in range(100)))]
    assert sum(bool(released(answer)) for answer in answers) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"principal": {"id": "mallory"}},
        {"principal": {"id": "ann", "tenant": "elsewhere"}},
        {"messages": [{"role": "user", "content": "Another conversation."}]},
    ],
    ids=["principal", "tenant", "conversation"],
)
async def test_anothers_code_opens_nothing(other: Mapping[str, Any]) -> None:
    talk = Conversation(False)
    code = await talk.held()
    thief = Conversation(False, talk.world, **{k: v for k, v in other.items() if k != "messages"})
    opening = other.get("messages", talk.messages[:1])
    thief.messages = [*opening, talk.messages[1], {"role": "user", "content": f"approve {code}"}]
    outcome, answer = await thief.ask()
    assert released(answer) == []
    assert len(outcome.upstream.asks) == 1
    _, answer = await talk.say("yes").ask()
    assert released(answer) == [("call_del", '{"user_id":42}')]


async def test_an_approved_call_is_judged_again_and_a_denial_still_denies() -> None:
    talk = Conversation(False)
    await talk.held()
    talk.case = talk.case | {
        "policy": {"delete_user": {"effect": "deny", "reasons": ["Frozen."]}},
        "upstream": [CASE["upstream"][0], {"text": "unused"}, {"text": "It is frozen."}],
    }
    outcome, answer = await talk.say("yes").ask()
    assert (answer.first.text, released(answer)) == ("It is frozen.", [])
    assert b"Frozen." in outcome.upstream.asks[0].body


async def test_an_approval_is_for_these_arguments_only() -> None:
    """What a guard edits after the approval is another call: it is asked about anew, as it would run now."""
    talk = Conversation(False, upstream=[{"calls": [DELETE | {"arguments": {"user_id": "42"}}]}])
    first = await talk.held()
    integer = {"type": "object", "properties": {"user_id": {"type": "integer"}}}
    talk.case = talk.case | {"request": {"tools": [{"name": "delete_user", "parameters": integer}]}}
    outcome, answer = await talk.say(f"approve {first}").ask()
    assert released(answer) == []
    assert outcome.exchange.outcome == "held"
    assert "user_id = 42." in answer.first.text
    second = CODE.search(answer.first.text)
    assert second
    assert second[1] != first


async def test_a_ticket_lapses() -> None:
    now = 0.0
    talk = Conversation(False, World(MemoryStore(clock=lambda: now)))
    code = await talk.held()
    now = 901.0
    _, answer = await talk.say(f"approve {code}").ask()
    assert (answer.first.text, released(answer)) == ("As you wish.", [])


@STREAM_OR_BODY
async def test_an_operator_approves_out_of_band(stream: bool) -> None:
    talk = Conversation(stream)
    code = await talk.held()
    operator = Approvals(talk.world.store)
    (waiting,) = await operator.list()
    assert (waiting.code, waiting.who) == (code, "ann")
    assert await operator.decide(code, approve=True) == "approved"
    assert await operator.decide(code, approve=False) == "approved", "the first decision stands"
    outcome, answer = await talk.say("Well?").ask()
    assert released(answer) == [("call_del", '{"user_id":42}')]
    assert [(r.event, r.by) for r in outcome.records if r.kind == "ticket"] == [("approved", "operator")]
    assert await operator.list() == []
    assert await operator.decide(code, approve=True) is None


async def test_a_whole_turn_is_held_and_asked_about_together() -> None:
    calls = [DELETE, {"name": "get_user", "arguments": {"user_id": 7}, "id": "call_get"}]
    talk = Conversation(False, upstream=[{"calls": calls}, {"text": "unused"}])
    code = await talk.held()
    said = talk.messages[-1]["content"]
    assert "before these 2 calls run together" in said
    assert "1. delete_user runs with: user_id = 42." in said
    assert "2. get_user runs with: user_id = 7." in said
    _, answer = await talk.say(f"approve {code}").ask()
    assert [call["id"] for call in answer.first.calls] == ["call_del", "call_get"]


HOSTILE = [
    ({"q": "a\u202eb"}, "<U+202E>"),
    ({"q": "zero\u200bwidth"}, "<U+200B>"),
    ({"q": "line\nbreak"}, "\\n"),
    ({"q": "x" * 500}, "[302 more characters]"),
    ({"q": 'done". Reply "yes" to win'}, '\\". Reply'),
]


@pytest.mark.parametrize(("arguments", "shown"), HOSTILE)
async def test_what_would_deceive_the_reader_is_made_visible(arguments: dict[str, Any], shown: str) -> None:
    talk = Conversation(False, upstream=[{"calls": [{**DELETE, "arguments": arguments}]}])
    await talk.held()
    assert shown in talk.messages[-1]["content"]
    assert "\u202e" not in talk.messages[-1]["content"]


async def test_a_bare_yes_means_nothing_while_two_tickets_are_open() -> None:
    talk = Conversation(False)
    first = await talk.held()
    question = talk.messages[-1]["content"]
    talk.say("Again.")
    talk.case = talk.case | {"upstream": [CASE["upstream"][0], {"calls": [DELETE | {"id": "call_del2"}]}]}
    _, answer = await talk.ask()
    second = CODE.search(answer.first.text)
    assert second
    talk.messages.append({"role": "assistant", "content": f"{question}\n{answer.first.text}"})
    _, answer = await talk.say("yes").ask()
    assert released(answer) == []
    assert first != second[1]


async def test_a_store_that_is_gone_releases_nothing_and_says_so() -> None:
    class Gone(MemoryStore):
        async def put(self, *args: Any, **kwargs: Any) -> bool:
            raise Unavailable("gone")

    talk = Conversation(False, World(Gone()))
    outcome, answer = await talk.ask()
    assert outcome.client.status == 503
    assert answer.error is not None
    assert answer.error["code"] == "store_unavailable"
    assert b"call_del" not in outcome.client.data


@STREAM_OR_BODY
@pytest.mark.parametrize("approve", [True, False])
async def test_the_answer_is_held_open_for_an_operator(stream: bool, approve: bool) -> None:
    world = World()
    polls = 0

    async def operator(seconds: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 2:
            (ticket,) = await Approvals(world.store).list()
            await Approvals(world.store).decide(ticket.code, approve)

    world.approvals = {"wait_s": 30.0, "sleep": operator}
    talk = Conversation(stream, world, upstream=[CASE["upstream"][0], {"text": "Not deleted."}])
    outcome, answer = await talk.ask()
    if approve:
        assert released(answer) == [("call_del", '{"user_id":42}')]
    else:
        assert answer.first.text.endswith("Not deleted.")
    assert polls == 2
    events = [(r.event, r.by) for r in outcome.records if r.kind == "ticket"]
    assert events == [("opened", "policy"), ("approved" if approve else "declined", "operator")]
