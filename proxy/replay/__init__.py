"""Judges recorded calls again under two sets of policies, and tells what each would decide otherwise."""

from proxy.replay.comparing import Change, Example, Replay, Tally
from proxy.replay.judging import Judgement, Side
from proxy.replay.rebuilding import Asked, Rebuilder

__all__ = ["Asked", "Change", "Example", "Judgement", "Rebuilder", "Replay", "Side", "Tally"]
