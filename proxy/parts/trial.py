"""Policies that are tried out beside those in force."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from proxy.config import Settings
from proxy.config.policies import Candidate as CandidateSettings
from proxy.engines.evaluating.evaluator import Evaluator
from proxy.engines.following.loading import loaded
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.engines.trial.candidate import Candidate, Shadowed
from proxy.engines.trial.trying import CandidateFollower
from proxy.parts.places import with_keys
from proxy.ports import PolicyEngine, Sink, Unavailable
from proxy.record import DifferenceRecord
from proxy.sinks.counted import Counted
from proxy.sinks.jsonl import JsonlSink


@dataclass(frozen=True)
class Trial:
    """A candidate, and what keeps it at what its files say."""

    candidate: Candidate
    follower: CandidateFollower

    def beside(self, engine: PolicyEngine) -> PolicyEngine:
        """The engine, of whose decisions the candidate is told."""
        return Shadowed(engine, self.candidate)


def trial(
    settings: Settings, sink: Sink, logs: Sequence[JsonlSink], metrics: CollectorRegistry
) -> Trial | None:
    """The candidate that the settings name; None where they name none."""
    tried = settings.policies.candidate
    if tried is None:
        return None

    def write(record: DifferenceRecord) -> None:
        # Room in the log is for what was decided: where it gets tight, differences are only counted.
        if all(log.has_room for log in logs):
            with suppress(Unavailable):
                sink.write(record)

    candidate = Candidate(
        write,
        timeout_s=tried.timeout_s,
        max_memory_bytes=tried.max_memory_bytes,
        capture=settings.audit.capture,
    )
    count_candidate(candidate, metrics)
    return Trial(candidate, CandidateFollower(candidate, lambda: loaded(tried.paths), tried.paths))


def count_candidate(candidate: Candidate, metrics: CollectorRegistry) -> None:
    """Show what became of a candidate's decisions."""
    Counted(
        metrics,
        "callgate_candidate_decisions",
        "What a candidate's policies would have decided, compared with what was decided.",
        ("package", "outcome"),
        lambda: candidate.outcomes,
    )


async def proven(tried: CandidateSettings) -> str:
    """The revision of a candidate that can serve; raises ``PolicyFault`` naming every fault."""
    try:
        policy_set = PolicySet.load(tried.paths)
    except PolicyFault as exc:
        raise PolicyFault(with_keys(exc.faults, tried, "policies.candidate")) from None
    evaluator = Evaluator(max_memory_bytes=tried.max_memory_bytes)
    try:
        await evaluator.start(policy_set)
    finally:
        await evaluator.close()
    return policy_set.revision
