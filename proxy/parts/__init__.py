"""The parts of a Callgate, each made from its settings: one module for each kind of part."""

from proxy.parts.definitions import definitions_gate
from proxy.parts.identity import identity_followers, recognisers
from proxy.parts.outside import doors, endpoint, guidance, routes, store
from proxy.parts.places import with_keys
from proxy.parts.policies import (
    Engine,
    count_evaluations,
    engine,
    fetch_policies,
    packaged,
    policy_follower,
)
from proxy.parts.results import cache_guard, pattern_faults, results_gate
from proxy.parts.tools import registry
from proxy.parts.trial import proven, trial
from proxy.parts.usage import limits_guard, meter, priced

__all__ = [
    "Engine",
    "cache_guard",
    "count_evaluations",
    "definitions_gate",
    "doors",
    "endpoint",
    "engine",
    "fetch_policies",
    "guidance",
    "identity_followers",
    "limits_guard",
    "meter",
    "packaged",
    "pattern_faults",
    "policy_follower",
    "priced",
    "proven",
    "recognisers",
    "registry",
    "results_gate",
    "routes",
    "store",
    "trial",
    "with_keys",
]
