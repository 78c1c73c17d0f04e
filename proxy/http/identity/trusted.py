"""Who asks, by the headers of an authenticating proxy in front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from proxy.http.identity.key_file import is_name
from proxy.http.identity.recognising import NOTHING, Recognised, Unidentified
from proxy.model import Principal

MAX_ROLES = 64


class TrustedHeaders:
    """Headers set by an authenticating proxy, believed only from ``trusted`` networks (CIDR)."""

    way = "Come through the proxy that signs you in"

    def __init__(self, id: str, roles: str | None, tenant: str | None, trusted: Iterable[str]) -> None:
        """The headers that name id, roles and tenant; raises ``ValueError`` for a network that is none."""
        self._networks = tuple(ip_network(network) for network in trusted)
        self._id, self._roles, self._tenant = (name.lower() if name else "" for name in (id, roles, tenant))
        self.reads = tuple(name for name in (self._id, self._roles, self._tenant) if name)
        self.strips = frozenset(self.reads)
        # Peers are few and users come again, and neither's name is a secret.
        self._trusts = lru_cache(maxsize=1024)(lambda peer: _within(peer, self._networks))
        self._named = lru_cache(maxsize=1024)(self._read)

    def recognise(self, headers: Mapping[str, str], peer: str | None) -> Recognised | None:
        """Whom the proxy in front names; nobody, where another peer sent the headers."""
        id = headers.get(self._id, "")
        if not id or peer is None or not self._trusts(peer):
            return None
        return self._named(id, headers.get(self._roles, ""), headers.get(self._tenant, ""))

    def _read(self, id: str, roles: str, tenant: str) -> Recognised:
        for name, value in ((self._id, id), (self._tenant, tenant)):
            # A comma is how proxies join a client's header with their own (RFC 9110 5.3).
            if value and ("," in value or not is_name(value)):
                raise Unidentified(f"The header {name} does not hold one name.", 400)
        return Recognised(Principal(id, _roles(self._roles, roles), tenant, kind="header"), NOTHING)


def _roles(header: str, value: str) -> tuple[str, ...]:
    roles = tuple(dict.fromkeys(value.replace(",", " ").split()))
    if len(roles) > MAX_ROLES or not all(map(is_name, roles)):
        raise Unidentified(f"The header {header} does not hold up to {MAX_ROLES} names of roles.", 400)
    return roles


def _within(peer: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
