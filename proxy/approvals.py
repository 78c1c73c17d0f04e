"""Tickets: a held turn, the question that is asked for it, and the one release that an approval gives.

A ticket belongs to one principal, one conversation and the canonical arguments of its calls. Of all who
try to release it, on whichever replica, one succeeds: ``Store.take`` is atomic.
"""

from __future__ import annotations

import base64
import re
import secrets
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from proxy.guards.base import canonical
from proxy.model import History, ToolCall, dumps, loads
from proxy.ports import Store
from proxy.record import masked
from proxy.tools import ToolSpec

State = Literal["open", "approved", "declined"]

# Without what is mistaken for something else: 0 O 1 I L.
_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
_CODE = re.compile(r"\b[A-HJKMNP-Z2-9]{6}\b")
_ANSWER = re.compile(
    r"(?P<not>(?:\b(?:not|never|cannot)|n['\u2019]t)\s+(?:\w+\s+)?)?"
    r"\b(?P<word>approve|decline)\s+(?P<code>[A-Za-z2-9]{6})\b",
    re.IGNORECASE,
)
_YES = frozenset({"yes", "y", "approve", "approved", "confirm", "confirmed", "ok", "okay", "go ahead"})
_NO = frozenset({"no", "n", "decline", "declined", "cancel", "stop", "do not"})
_QUESTION = "Confirmation needed before "
_MAX_CODES = 16
_POLL_S = 0.5
_MAX_VALUE_CHARS = 200
_MAX_TICKETS_LISTED = 1000
_PREFIX = "ticket:"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A turn that waits for a person."""

    code: str
    principal: str
    """The principal's key."""
    who: str
    """The principal's id, for the operator."""
    conversation: str
    protocol: str
    time: str
    question: str
    calls: tuple[dict[str, Any], ...]
    """What will run: ``{id, name, arguments}``, with ``mask`` where records must not show all of it."""
    turn: bytes
    """The held turn, in its codec's words."""

    def covers(self) -> frozenset[tuple[str, str, bytes]]:
        """The calls that an approval of this ticket is for."""
        return frozenset((call["id"], call["name"], canonical(call["arguments"])) for call in self.calls)

    def approval(self, by: str, time: str) -> dict[str, Any]:
        """The approval as policies see it."""
        ids = [call["id"] for call in self.calls]
        return {"approved": True, "code": self.code, "by": by, "time": time, "calls": ids}

    def recorded(self, accept: Sequence[str]) -> str:
        """The question as records may show it."""
        if not any("mask" in call for call in self.calls):
            return self.question
        calls = [
            (ToolCall(call["id"], call["name"], "", masked(call["arguments"], call.get("mask", ()))), None)
            for call in self.calls
        ]
        return word_question(self.code, calls, accept)

    def dump(self) -> bytes:
        """The ticket as it is kept."""
        return dumps(
            {name: getattr(self, name) for name in self.__slots__ if name != "turn"}
            | {"turn": base64.b64encode(self.turn).decode()}
        )

    @classmethod
    def load(cls, kept: bytes) -> Ticket:
        """The ticket as it was kept."""
        fields = loads(kept)
        return cls(**{**fields, "calls": tuple(fields["calls"]), "turn": base64.b64decode(fields["turn"])})


@dataclass(frozen=True, slots=True)
class Decided:
    """A ticket that a person has decided, and that now belongs to whoever holds this."""

    ticket: Ticket
    approved: bool
    by: str


@dataclass(frozen=True)
class Approvals:
    """Opens tickets, and finds out what people answered."""

    store: Store
    accept: Sequence[Literal["code", "yes"]] = ("code", "yes")
    ttl_s: float = 900.0
    wait_s: float = 0.0
    sleep: Callable[[float], Awaitable[None]] | None = None

    async def open(
        self,
        principal: tuple[str, str],
        conversation: str,
        protocol: str,
        time: str,
        calls: Sequence[tuple[ToolCall, ToolSpec | None]],
        turn: bytes,
        masks: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> Ticket:
        """Keep a turn under a new code; ``principal`` is its key and id, ``masks`` go by the calls' ids."""
        shown = tuple(
            {"id": c.id, "name": c.name, "arguments": c.arguments}
            | ({"mask": list(masks[c.id])} if masks.get(c.id) else {})
            for c, _ in calls
        )
        while True:
            code = "".join(secrets.choice(_ALPHABET) for _ in range(6))
            if await self.state(code) != "open":
                continue  # an old decision must not fall on a new ticket
            question = word_question(code, calls, self.accept)
            ticket = Ticket(code, *principal, conversation, protocol, time, question, shown, turn)
            if await self.store.put(_PREFIX + code, ticket.dump(), self.ttl_s, only_if_absent=True):
                return ticket

    async def answered(
        self, principal: str, conversation: str, protocol: str, history: History
    ) -> Decided | None:
        """What the user's last message, or a person elsewhere, decided of a ticket of this conversation.

        A turn that was held in another protocol's words cannot be played back here: its ticket stays.
        """
        said = _said(history.query)
        asked = _CODE.findall(history.last_answer) if _QUESTION in history.last_answer else []
        codes = list(dict.fromkeys([*said, *asked]))[:_MAX_CODES]
        if not codes:
            return None
        kept = await self.store.get_many([_PREFIX + code for code in codes])
        tickets = [Ticket.load(value) for value in kept if value is not None]
        here = (principal, conversation, protocol)
        mine = [t for t in tickets if (t.principal, t.conversation, t.protocol) == here]
        plain = self._plain(history, mine)
        for ticket in mine:
            if (state := await self.state(ticket.code)) != "open":
                return await self._claim(ticket, state == "approved", "operator")
            answer = said.get(ticket.code, plain)
            # To decline is always understood; to approve only in the ways that are accepted.
            if answer is not None and (not answer or ticket.code not in said or "code" in self.accept):
                return await self._claim(ticket, answer, "user")
        return None

    def _plain(self, history: History, tickets: Sequence[Ticket]) -> bool | None:
        """A bare yes or no, where it can only mean one ticket: the one that was just asked about."""
        asked = [ticket for ticket in tickets if ticket.question in history.last_answer]
        if "yes" not in self.accept or len(asked) != 1 or len(tickets) != 1:
            return None
        word = " ".join(history.query.split()).casefold().rstrip(".!")
        return True if word in _YES else False if word in _NO else None

    async def _claim(self, ticket: Ticket, approved: bool, by: str) -> Decided | None:
        """Take the ticket; None where another was faster."""
        if await self.store.take(_PREFIX + ticket.code) is None:
            return None
        # An operator who declined before it was taken was told that it is declined.
        if approved and by == "user" and await self.state(ticket.code) == "declined":
            return Decided(ticket, False, "operator")
        return Decided(ticket, approved, by)

    async def wait(self, ticket: Ticket) -> Decided | None:
        """Wait up to ``wait_s`` seconds for a decision from elsewhere."""
        waited = 0.0
        while self.sleep is not None and waited < self.wait_s:
            if (state := await self.state(ticket.code)) != "open":
                return await self._claim(ticket, state == "approved", "operator")
            step = min(_POLL_S, self.wait_s - waited)
            await self.sleep(step)
            waited += step
        return None

    # -- the operators' side ------------------------------------------------------------------

    async def list(self) -> list[Ticket]:
        """The tickets that wait, oldest first."""
        keys = (await self.store.keys(_PREFIX))[:_MAX_TICKETS_LISTED]
        kept = await self.store.get_many(keys)
        return sorted((Ticket.load(value) for value in kept if value is not None), key=lambda t: t.time)

    async def decide(self, code: str, approve: bool) -> State | None:
        """Decide a ticket; the first decision stands and is returned. None where there is no such ticket."""
        if await self.store.get(_PREFIX + code) is None:
            return None
        word = b"approved" if approve else b"declined"
        await self.store.put(f"decided:{code}", word, self.ttl_s, only_if_absent=True)
        return await self.state(code)

    async def state(self, code: str) -> State:
        """What was decided elsewhere."""
        kept = await self.store.get(f"decided:{code}")
        return "open" if kept is None else "approved" if kept == b"approved" else "declined"


def _said(query: str) -> dict[str, bool]:
    """The codes that the user's words name, and whether they approve."""
    lowered = query.lower()
    # Most messages have neither word, and are soon known not to.
    if "appro" not in lowered and "decl" not in lowered:
        return {}
    said: dict[str, bool] = {}
    for answer in _ANSWER.finditer(query):
        approves = answer["word"].lower() == "approve"
        # "Do not approve": whatever else it means, it is no approval.
        if not (approves and answer["not"]):
            said[answer["code"].upper()] = approves
    return said


def word_question(code: str, calls: Sequence[tuple[ToolCall, ToolSpec | None]], accept: Sequence[str]) -> str:
    """The question, showing exactly what will run."""
    actions = [_action(call, spec) for call, spec in calls]
    if len(actions) == 1:
        what = f"{_QUESTION}{actions[0]}"
    else:
        lines = "\n".join(f"{number}. {action}" for number, action in enumerate(actions, 1))
        what = f"{_QUESTION}these {len(actions)} calls run together:\n{lines}\n"
    what = f"{what.rstrip('.')}{_stop(what)}"
    decline = f'"decline {code}"'
    if not accept:
        waits = "It waits" if len(actions) == 1 else "They wait"
        return f"{what} {waits} for an operator's approval (ticket {code}); reply {decline} to decline."
    approve = f"approve {code}" if "code" in accept else "yes"
    end = "exactly this" if len(actions) == 1 else "exactly these"
    return f'{what} Reply "{approve}" to run {end}, or {decline}.'


def _stop(what: str) -> str:
    return "" if what.endswith("\n") else "."


def _action(call: ToolCall, spec: ToolSpec | None) -> str:
    rule = spec.confirm if spec is not None else None
    title = f" ({visible(rule.title)})" if rule is not None and rule.title else ""
    arguments = call.arguments or {}
    # What a tool wants shown first stands first; nothing that will run is left out.
    first = [name for name in (rule.show if rule is not None else ()) if name in arguments]
    names = list(dict.fromkeys([*first, *arguments]))
    shown = ", ".join(f"{visible(name)} = {_value(arguments[name])}" for name in names)
    return (
        f"{visible(call.name)}{title} runs with: {shown}." if shown else f"{visible(call.name)}{title} runs."
    )


def _value(value: Any) -> str:
    text = visible(dumps(value).decode())
    if len(text) <= _MAX_VALUE_CHARS:
        return text
    return f"{text[:_MAX_VALUE_CHARS]}… [{len(text) - _MAX_VALUE_CHARS} more characters]"


def visible(text: str) -> str:
    """The text with control, bidirectional and other invisible characters written out."""
    return "".join(char if _plain(char) else f"<U+{ord(char):04X}>" for char in text)


def _plain(char: str) -> bool:
    return char == " " or (char.isprintable() and unicodedata.category(char) not in {"Cf", "Zs"})
