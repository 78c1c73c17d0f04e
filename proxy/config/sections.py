"""Settings of what stands inside: policies, tools, guards, approvals, store, audit, limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from proxy.config.values import (
    Bytes,
    Name,
    OrSecret,
    Port,
    SecretRef,
    Section,
)
from proxy.stores.redis_url import parse_url

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Tokens = Annotated[int, Field(ge=1, le=10**15)]
Usd = Annotated[float, Field(gt=0, le=1e9)]


class Listen(Section):
    """Where clients connect."""

    host: Name = "127.0.0.1"
    """Address to listen on. Off loopback, `identity` has to be written down."""
    port: Port = 8787
    """Port to listen on; 0 lets the system choose."""


class Admin(Section):
    """Where operators and probes connect: health, metrics, the admin API."""

    host: Name = "127.0.0.1"
    """Address to listen on. Who reaches it can approve calls: keep it from clients."""
    port: Port = 8788
    """Port to listen on; 0 lets the system choose."""
    token: SecretRef | None = None
    """Bearer token for the admin API: `{env: NAME}` or `{file: PATH}`. Probes and metrics need none."""


class Doors(Section):
    """The routes that clients may use. Those that carry calls are judged, and that cannot be changed."""

    passed: tuple[Annotated[str, Field(pattern=r"^/[A-Za-z0-9/._-]+(/\*)?$")], ...] = ()
    """Refused or unknown routes, as `/files/*`, to pass as they are: nobody judges the calls there."""

    @field_validator("passed")
    @classmethod
    def _below_the_version(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if path == "/v1" or path.startswith("/v1/"):
                raise ValueError(f"{path} begins with /v1 (write what follows it)")
        return paths


class GuardSettings(Section):
    """What every guard takes."""

    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow` records the guard's verdict and does not act on it."""
    on_error: Literal["deny", "allow"] = "deny"
    """What becomes of a call when the guard itself fails."""


class LoopGuard(GuardSettings):
    """Bounds on calls for one user query."""

    max_calls: Annotated[int, Field(ge=1, le=10_000)] = 25
    """Calls for one user query."""
    max_identical: Annotated[int, Field(ge=1, le=10_000)] = 3
    """Calls of one tool with the same arguments."""
    max_similar: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Calls of one tool with nearly the same arguments."""


class SchemaGuard(GuardSettings):
    """How arguments are held to their JSON Schema."""

    coerce: bool = True
    """Whether `"5"` becomes `5` where the schema leaves no doubt."""
    unknown_parameters: Literal["refuse", "allow"] = "refuse"
    """A parameter that the schema does not name, where the schema does not say whether it may be there."""


class PolicyGuard(GuardSettings):
    """How the policies are asked."""

    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds for one decision. What takes longer is ended, and the call denied."""


class CallLimits(Section):
    """How often tools may be called. A limit that is not written is none."""

    per_minute: Count | None = None
    """Calls of tools a minute."""
    per_hour: Count | None = None
    """Calls of tools an hour."""
    per_day: Count | None = None
    """Calls of tools a day."""


class RequestLimits(Section):
    """How much may be asked of models. A limit that is not written is none."""

    requests_per_minute: Count | None = None
    """Requests a minute."""
    requests_per_hour: Count | None = None
    """Requests an hour."""
    requests_per_day: Count | None = None
    """Requests a day."""
    tokens_per_minute: Tokens | None = None
    """Tokens, in and out, a minute."""
    tokens_per_hour: Tokens | None = None
    """Tokens, in and out, an hour."""
    tokens_per_day: Tokens | None = None
    """Tokens, in and out, a day."""
    usd_per_minute: Usd | None = None
    """US dollars a minute."""
    usd_per_hour: Usd | None = None
    """US dollars an hour."""
    usd_per_day: Usd | None = None
    """US dollars a day."""


class AllLimits(RequestLimits, CallLimits):
    """How often tools may be called, and how much may be asked of models."""


class Price(Section):
    """What tokens cost."""

    input_usd_per_mtok: Annotated[float, Field(ge=0, le=1e6)]
    """US dollars for a million tokens in."""
    output_usd_per_mtok: Annotated[float, Field(ge=0, le=1e6)]
    """US dollars for a million tokens out."""


class LimitsGuard(AllLimits, GuardSettings):
    """What each principal may use, and all of them together. A limit that is not written is none."""

    tools: Mapping[str, CallLimits] = {}
    """For each principal, by tool: `{"delete_*": {per_day: 5}}`. Tools that one glob names count as one."""
    tenant: AllLimits = AllLimits()
    """For each tenant: all its principals together. Principals without a tenant share one."""
    models: Mapping[str, RequestLimits] = {}
    """For everyone together, by model: `{"gpt-*": {tokens_per_minute: 100000}}`."""
    output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 4_096
    """Tokens to reserve for an answer whose length the request does not bound."""
    prices: Mapping[str, Price] = {}
    """By model, before list prices: `{"my-*": {input_usd_per_mtok: 1, output_usd_per_mtok: 4}}`."""
    unknown_price: Literal["refuse", "allow"] = "refuse"
    """A model without a price, where a limit in US dollars holds; `allow` does not count it there."""


class CacheGuard(GuardSettings):
    """Results of read-only tools that answer again. The tool's description says which, and how long."""

    max_entries: Annotated[int, Field(ge=0, le=10_000_000)] = 10_000
    """Results to keep; 0 keeps none."""
    on_error: Literal["deny", "allow"] = "allow"
    """What becomes of a call when the cache itself fails; `allow` goes on as after a miss."""


class Guards(Section):
    """The guards, in the order in which they judge a call."""

    loop: LoopGuard = LoopGuard()
    """Stops calls that go in circles."""
    schema_: SchemaGuard = Field(default=SchemaGuard(), alias="schema")
    """Holds arguments to the tool's JSON Schema."""
    policy: PolicyGuard = PolicyGuard()
    """Asks the policies."""
    limits: LimitsGuard = LimitsGuard()
    """Bounds what one principal uses."""
    cache: CacheGuard = CacheGuard()
    """Answers from earlier results."""


class Route(Section):
    """Other models for requests that offer tools."""

    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Globs of the models that requests ask for."""
    decide: Name | None = None
    """The model that decides which tools to call. None: the one that was asked for."""
    answer: Name | None = None
    """The model that goes on once the tools' results are there. None: the one that was asked for."""


class Guidance(Section):
    """An instruction that is added after the application's own."""

    text: Annotated[str, Field(min_length=1, max_length=16_384)]
    """What the model is told."""
    tools: Annotated[tuple[Name, ...], Field(min_length=1)] = ("*",)
    """Globs of tools; the request offers one of them."""
    models: Annotated[tuple[Name, ...], Field(min_length=1)] = ("*",)
    """Globs of models; the request is for one of them."""


class Status(Section):
    """A line for the user while a tool runs, on streams."""

    enabled: bool = False
    """Whether a stream says the `status` of the tools that it ends in calls of."""


class Approvals(Section):
    """How a person approves a call."""

    accept: tuple[Literal["code", "yes"], ...] = ("code", "yes")
    """What approves in the chat: the ticket's `code`, a bare `yes`. Empty: the admin API only."""
    ttl_s: Annotated[float, Field(ge=10, le=86_400)] = 900.0
    """Seconds after which a question lapses."""
    wait_s: Annotated[float, Field(ge=0, le=3_600)] = 0.0
    """Seconds for which the answer is held open for an approval through the admin API."""

    @model_validator(mode="after")
    def _not_longer_than_the_ticket(self) -> Approvals:
        if self.wait_s > self.ttl_s:
            raise ValueError("wait_s is longer than ttl_s: the ticket would lapse first (lower wait_s)")
        return self


class MemoryStore(Section):
    """Shared state in the process itself."""

    kind: Literal["memory"] = "memory"
    """Keep state in this process: for one worker, and lost when it ends."""
    max_entries: Annotated[int, Field(ge=100, le=100_000_000)] = 100_000
    """Entries to keep."""
    max_bytes: Annotated[int, Field(ge=2**20, le=2**40)] = 256 * 2**20
    """Bytes to keep."""


class RedisStore(Section):
    """Shared state in Redis or Valkey."""

    kind: Literal["redis"]
    """Keep state in Redis or Valkey: for many workers and replicas."""
    url: OrSecret = "redis://127.0.0.1:6379/0"
    """Where it is (docs/state.md has the forms). With a password: `{env: NAME}` or `{file: PATH}`."""
    prefix: Name = "callgate:"
    """What every key begins with."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    """Seconds to wait for one answer."""

    @field_validator("url")
    @classmethod
    def _a_server(cls, url: str | SecretRef) -> str | SecretRef:
        if isinstance(url, str) and parse_url(url).has_credentials:
            raise ValueError("holds credentials (keep the whole URL as {env: NAME} or {file: PATH})")
        return url


Store = Annotated[MemoryStore | RedisStore, Field(discriminator="kind")]


class JsonlSink(Section):
    """A log of JSON Lines."""

    kind: Literal["jsonl"] = "jsonl"
    """Write JSON Lines, each bound to the one before it by a hash."""
    path: Path = Path("audit")
    """Folder of the log's segments."""


class Audit(Section):
    """The evidence."""

    sinks: tuple[JsonlSink, ...] = (JsonlSink(),)
    """Where records go. Empty: nowhere but the metrics."""
    capture: Literal["full", "digest", "off"] = "full"
    """How much of queries, arguments, claims and results a record holds."""
    on_failure: Literal["deny", "allow"] = "deny"
    """What becomes of a call whose record cannot be kept."""
    max_queue: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Records that may wait to be written."""


class Limits(Section):
    """What one request may cost Callgate."""

    max_request_bytes: Bytes = 20 * 2**20
    """Bytes of a client's request."""
    max_request_values: Annotated[int, Field(ge=1_000, le=100_000_000)] = 500_000
    """Values in the JSON of a client's request; an empty list or object counts as two."""
    max_response_bytes: Bytes = 64 * 2**20
    """Bytes of a provider's answer that is not streamed."""
    max_rounds: Annotated[int, Field(ge=0, le=20)] = 3
    """How often the model is asked again within one request."""
    max_held_bytes: Bytes = 8 * 2**20
    """Bytes of tool calls held until their turn is complete."""
    max_event_bytes: Bytes = 4 * 2**20
    """Bytes of one event of a stream."""
    body_timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 60.0
    """Seconds for the whole of a judged request's body to arrive."""
    idle_connection_s: Annotated[float, Field(gt=0, le=3_600)] = 75.0
    """Seconds for which a kept connection may be silent, and for the head of a request to arrive."""
    stalled_client_s: Annotated[float, Field(ge=0.1, le=86_400)] = 300.0
    """Seconds after which a client that reads nothing of its answer is given up."""
    settled_ttl_s: Annotated[float, Field(ge=60, le=30 * 86_400)] = 86_400.0
    """Seconds for which settled calls are kept, so that later requests can carry them."""
    keepalive_s: Annotated[float, Field(ge=0.1, le=300)] = 5.0
    """Seconds of silence after which a stream gets a keep-alive."""
    drain_s: Annotated[float, Field(ge=0, le=3_600)] = 30.0
    """Seconds that open requests have to end when Callgate stops."""
