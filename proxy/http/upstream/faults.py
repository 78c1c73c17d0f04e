"""What can go wrong between here and a provider, as clients are told it."""

from __future__ import annotations

from proxy.ports import UpstreamFailed


def unreachable() -> UpstreamFailed:
    """No connection, or not one to the provider: its name, its port or its certificate."""
    return UpstreamFailed(502, "upstream_unreachable", "The provider cannot be reached.")


def no_connection(timeout_s: float) -> UpstreamFailed:
    """Nobody took the connection in time."""
    return UpstreamFailed(504, "upstream_timeout", f"No connection to the provider within {timeout_s:g} s.")


def no_answer(timeout_s: float) -> UpstreamFailed:
    """The head of the answer did not come in time."""
    message = f"The provider did not begin to answer within {timeout_s:g} s."
    return UpstreamFailed(504, "upstream_timeout", message)


def broken() -> UpstreamFailed:
    """The connection ended before the head of an answer: what became of the request is not known."""
    message = "The connection to the provider broke before it answered. The request was not sent again."
    return UpstreamFailed(502, "upstream_broken", message)


def malformed() -> UpstreamFailed:
    """The head of the answer is none."""
    return UpstreamFailed(502, "upstream_malformed", "The provider's answer is not valid HTTP.")


def another_protocol(status: int) -> UpstreamFailed:
    """The provider switches to what was not asked for."""
    message = f"The provider wants to speak another protocol ({status})."
    return UpstreamFailed(502, "upstream_malformed", message)


def redirect(status: int) -> UpstreamFailed:
    """A client that followed a redirect would leave Callgate behind; so does Callgate not."""
    message = f"The provider answered with a redirect ({status}); check upstreams[].base_url."
    return UpstreamFailed(502, "upstream_redirect", message)


def encoded() -> UpstreamFailed:
    """The body is in an encoding that is not undone here."""
    message = "The provider's answer has a content encoding that was not asked for and cannot be read."
    return UpstreamFailed(502, "upstream_malformed", message)


def incomplete() -> UpstreamFailed:
    """The body did not come to the end that its head, its chunks or its encoding promised."""
    return UpstreamFailed(
        502, "upstream_incomplete", "The provider's answer was cut off. No tool call was released."
    )


def stalled(timeout_s: float) -> UpstreamFailed:
    """No byte came for too long in the middle of an answer."""
    message = f"The provider sent nothing for {timeout_s:g} s in the middle of its answer."
    return UpstreamFailed(504, "upstream_stalled", message)


def too_large() -> UpstreamFailed:
    """Words about an error that have no end."""
    return UpstreamFailed(502, "upstream_malformed", "The provider's error is too large.")
