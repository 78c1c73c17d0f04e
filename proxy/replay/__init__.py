"""Judges recorded calls again under two sets of policies, and tells what each would decide otherwise."""

from proxy.replay.comparing import Example, Outcome, Replay, Tally
from proxy.replay.judging import Judgement, Side
from proxy.replay.rebuilding import Asked, Rebuilder

__all__ = ["Asked", "Example", "Judgement", "Outcome", "Rebuilder", "Replay", "Side", "Tally"]
