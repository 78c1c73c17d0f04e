"""Several sinks at once."""

from __future__ import annotations

import pytest

from proxy.ports import Unavailable
from proxy.record import Record
from proxy.sinks import Tee


class Kept(list[Record]):
    def write(self, record: Record) -> None:
        self.append(record)


class Refusing:
    def __init__(self, reason: str) -> None:
        self.reason = reason

    def write(self, record: Record) -> None:
        raise Unavailable(self.reason)


def test_every_sink_gets_every_record_in_order(decision, exchange) -> None:
    first, second = Kept(), Kept()
    tee = Tee(first, second)
    tee.write(decision())
    tee.write(exchange())
    assert first == second == [decision(), exchange()]


def test_a_refusal_is_raised_after_the_others_got_theirs(decision) -> None:
    before, after = Kept(), Kept()
    with pytest.raises(Unavailable, match="first"):
        Tee(before, Refusing("first"), Refusing("second"), after).write(decision())
    assert before == after == [decision()]
