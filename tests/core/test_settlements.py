"""Under which names settled calls are kept: replicas of two versions find one another's."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Principal
from proxy.settlements import Settlements
from proxy.stores.memory import MemoryStore
from tests.core.protocols import PROTOCOLS

ANY = st.text(st.characters(), max_size=6)  # halves of surrogate pairs too: clients may send them


@given(id=ANY, scope=ANY, handles=st.lists(ANY, max_size=3))
async def test_a_name_is_the_digest_of_principal_scope_and_handle(
    id: str, scope: str, handles: list[str]
) -> None:
    principal, store = Principal(id), MemoryStore()
    settlements = Settlements(store, PROTOCOLS["chat"].codec, principal, ttl_s=60)
    for handle in handles:
        text = "\0".join((principal.key, scope, handle))
        name = "settled:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()
        await store.put(name, handle.encode(errors="replace"), 60)
    found = await settlements.find(handles, scope)
    assert found == [handle.encode(errors="replace") for handle in handles]
    assert await settlements.find(["another"], scope) == [None]
