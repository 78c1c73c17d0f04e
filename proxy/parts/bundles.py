"""Bundles of policies, from their settings."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from proxy.config import ConfigFault, Settings
from proxy.config.policies import PolicyBundle
from proxy.config.policies import Verification as VerificationSettings
from proxy.engines.sources.bundles import Archive
from proxy.engines.sources.fetching import Place, RemoteBundle
from proxy.engines.sources.signatures import Verification, VerificationKey
from proxy.parts.places import authorities


def local_bundles(settings: Settings, environ: Mapping[str, str]) -> list[Archive]:
    """The bundles in files, not read yet; raises ``ConfigFault`` where a key is missing or wrong."""
    return [
        Archive(str(bundle.path), bundle.path, _verification(bundle, environ, number))
        for number, bundle in enumerate(settings.policies.bundles)
        if bundle.path is not None
    ]


def remote_bundles(settings: Settings, environ: Mapping[str, str]) -> list[RemoteBundle]:
    """The bundles at URLs, not asked for yet; raises ``ConfigFault`` where a secret or a key is missing."""
    return [
        RemoteBundle(
            Place(
                bundle.url,
                token=bundle.token.resolve(environ) if bundle.token is not None else None,
                tls=_tls(bundle, number),
                poll_s=bundle.poll_s,
                timeout_s=bundle.timeout_s,
                max_bytes=bundle.max_bytes,
            ),
            _verification(bundle, environ, number),
        )
        for number, bundle in enumerate(settings.policies.bundles)
        if bundle.url is not None
    ]


def _verification(bundle: PolicyBundle, environ: Mapping[str, str], number: int) -> Verification | None:
    asked = bundle.verification
    return None if asked is None else Verification(_keys(asked, environ, number), asked.scope)


def _keys(
    asked: VerificationSettings, environ: Mapping[str, str], number: int
) -> tuple[VerificationKey, ...]:
    keys = []
    for key in asked.keys:
        try:
            keys.append(VerificationKey.of(key.id, key.algorithm, key.key.resolve_lines(environ)))
        except ConfigFault:
            raise
        except ValueError as exc:
            raise ConfigFault(
                [f"policies.bundles[{number}].verification: key {key.id!r} in {key.key.place}: {exc}"]
            ) from None
    return tuple(keys)


def _tls(bundle: PolicyBundle, number: int) -> ssl.SSLContext | bool:
    if bundle.ca_file is None:
        return True
    try:
        return authorities(bundle.ca_file)
    except ConfigFault as exc:
        raise ConfigFault([f"policies.bundles[{number}].ca_file: {fault}" for fault in exc.faults]) from None
