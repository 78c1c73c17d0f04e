"""Who asks: every way to tell, and what keeps their keys at what the outside says."""

from proxy.http.identity.api_keys import ApiKeys
from proxy.http.identity.fallbacks import Anonymous, Passthrough
from proxy.http.identity.fetching import HttpKeys
from proxy.http.identity.following import FileFollower
from proxy.http.identity.issuer import Issuer, KeysFile
from proxy.http.identity.key_file import IdentityFault
from proxy.http.identity.recognising import Identity, Recognised, Recogniser, Undecided, Unidentified
from proxy.http.identity.tokens import Tokens
from proxy.http.identity.trusted import TrustedHeaders

__all__ = [
    "Anonymous",
    "ApiKeys",
    "FileFollower",
    "HttpKeys",
    "Identity",
    "IdentityFault",
    "Issuer",
    "KeysFile",
    "Passthrough",
    "Recognised",
    "Recogniser",
    "Tokens",
    "TrustedHeaders",
    "Undecided",
    "Unidentified",
]
