"""Signed bundles: what the real OPA signs is served, and nothing that was changed since."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.sources.bundles import Archive
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.engines.sources.signatures import Verification, VerificationKey, canonical
from tests.engines.archiving import packed

ALLOW = 'package callgate.call\n\ndecision := {"effect": "allow"}\n'
SECRET = "s" * 64

# What JSON can say in more than one way, and Go and Python write differently.
ODD = r"""{
  "z": 1.0, "a": [1e3, 12345678901234567890, -0, 0.1e-7, 100000000000000000000000.5, 1E+2],
  "text": "<é&> \u2028 \b\f\n\t \u0001 \u007f 😀 \" \\ \/", "é": {"b": null, "B": true, "": false},
  "e": [], "o": {}
}"""
YAML = "x: 1.0\nsmall: 0.00000012\nbig: 1.0e+22\nwhole: 0x10\nlist: [true, ~, -0.5]\ntext: 'a: \"b\"'\n"

Keys = dict[str, tuple[Path, Path]]


def _pem(folder: Path, name: str, private: Any) -> tuple[Path, Path]:
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    secret.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return secret, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Private and public key files."""
    folder = tmp_path_factory.mktemp("keys")
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    made: dict[str, Any] = {name: ec.generate_private_key(curve) for name, curve in curves.items()}
    made |= {name: rsa.generate_private_key(65537, 2048) for name in ("RS256", "stranger")}
    made["weak"] = rsa.generate_private_key(65537, 1024)
    found = {name: _pem(folder, name, private) for name, private in made.items()}
    return found | {name: found["RS256"] for name in ("RS384", "RS512", "PS256", "PS384", "PS512")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that OPA makes bundles of."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "call.rego").write_text(ALLOW)
    (folder / "odd").mkdir()
    (folder / "odd/data.json").write_text(ODD)
    (folder / ".manifest").write_text('{"revision": "r1", "roots": ["callgate", "odd"]}')
    return folder


@pytest.fixture(scope="module")
def build(opa: str, sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """What ``opa build`` makes of the sources, signed with a key."""
    built: dict[tuple[str, ...], bytes] = {}

    def run(key: str, algorithm: str, *options: str) -> bytes:
        arguments = (f"--signing-key={key}", f"--signing-alg={algorithm}", *options) if key else options
        if arguments not in built:
            out = tmp_path_factory.mktemp("built") / "b.tar.gz"
            subprocess.run(
                [opa, "build", "-b", ".", "-o", str(out), *arguments], cwd=sources, check=True, timeout=60
            )
            built[arguments] = out.read_bytes()
        return built[arguments]

    return run


def verifying(keys: Keys, algorithm: str = "RS256", id: str = "default", scope: str = "") -> Verification:
    text = keys[algorithm][1].read_text() if algorithm in keys else SECRET
    return Verification((VerificationKey.of(id, algorithm, text),), scope)


def loaded(content: bytes, verification: Verification | None) -> PolicySet:
    return PolicySet.load([Archive("b", content, verification)])


def fault_of(content: bytes, verification: Verification | None) -> str:
    with pytest.raises(PolicyFault) as caught:
        loaded(content, verification)
    (fault,) = caught.value.faults
    return fault


def files_of(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]


def signed(keys: Keys, contents: dict[str, bytes], **payload: Any) -> bytes:
    """A bundle whose signature says what a test wants it to say."""
    listed = [
        {"name": name, "hash": hashlib.sha256(content).hexdigest(), "algorithm": "SHA-256"}
        for name, content in contents.items()
    ]
    private = keys["RS256"][0].read_text()
    token = jwt.encode({"files": listed} | payload, private, "RS256", headers={"kid": "default"})
    return packed({**contents, ".signatures.json": json.dumps({"signatures": [token]})})


# -- what OPA signs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "algorithm",
    [*(f"{kind}{bits}" for kind in ("RS", "PS", "ES", "HS") for bits in (256, 384, 512))],
)
def test_what_opa_signs_is_served(build: Callable[..., bytes], keys: Keys, algorithm: str) -> None:
    key = str(keys[algorithm][0]) if algorithm in keys else SECRET
    found = loaded(build(key, algorithm), verifying(keys, algorithm))
    assert found.labels == (("b", "r1"),)
    assert len(found.modules) == 1
    assert json.loads(found.data_json)["odd"]["z"] == 1.0


def test_a_folder_that_opa_signed_may_be_packed_by_hand(opa: str, keys: Keys, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    (folder / "y").mkdir(parents=True)
    (folder / "call.rego").write_text(ALLOW)
    (folder / "y/data.yaml").write_text(YAML)
    (folder / "data.json").write_text(ODD)
    command = [opa, "sign", "-b", ".", f"--signing-key={keys['RS256'][0]}", "-o", "."]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, ".")
    found = json.loads(loaded(buffer.getvalue(), verifying(keys)).data_json)
    assert found["y"] == {
        "x": 1.0,
        "small": 1.2e-07,
        "big": 1e22,
        "whole": 16,
        "list": [True, None, -0.5],
        "text": 'a: "b"',
    }


def test_space_and_order_of_data_are_not_signed_and_values_are(
    build: Callable[..., bytes], keys: Keys
) -> None:
    files = files_of(build(str(keys["RS256"][0]), "RS256"))
    value = json.loads(files["/data.json"], parse_float=lambda text: text, parse_int=lambda text: text)
    assert value["odd"]["z"] == "1.0"
    spaced = files["/data.json"].replace(b",", b" ,\n ")
    found = loaded(packed(files | {"/data.json": spaced}), verifying(keys))
    assert json.loads(found.data_json)["odd"]["z"] == 1.0
    other = files["/data.json"].replace(b'"z":1.0', b'"z":1.00')
    assert "'data.json' is not what was signed" in fault_of(
        packed(files | {"/data.json": other}), verifying(keys)
    )


def test_a_key_may_have_a_name(build: Callable[..., bytes], keys: Keys) -> None:
    content = build(str(keys["RS256"][0]), "RS256", "--verification-key-id=ours")
    ours = VerificationKey.of("ours", "RS256", keys["RS256"][1].read_text())
    stranger = VerificationKey.of("theirs", "RS256", keys["stranger"][1].read_text())
    assert loaded(content, Verification((stranger, ours))).labels == (("b", "r1"),)
    assert "a key named 'ours'; the keys here are 'theirs'" in fault_of(content, Verification((stranger,)))


def test_a_certificate_is_a_key(build: Callable[..., bytes], keys: Keys) -> None:
    private: Any = serialization.load_pem_private_key(keys["RS256"][0].read_bytes(), None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    certificate = x509.CertificateBuilder(name, name, private.public_key(), 1, begin, begin + timedelta(1))
    pem = certificate.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    key = VerificationKey.of("default", "RS256", pem)
    assert loaded(build(str(keys["RS256"][0]), "RS256"), Verification((key,))).labels == (("b", "r1"),)


# -- what was changed since, or by others --------------------------------------------------------

Files = dict[str, bytes]
CHANGES: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a policy": (
        lambda files: files | {"/call.rego": files["/call.rego"].replace(b"allow", b"al1ow")},
        "'call.rego' is not what was signed",
    ),
    "a space in a policy": (
        lambda files: files | {"/call.rego": files["/call.rego"] + b" "},
        "'call.rego' is not what was signed",
    ),
    "data": (
        lambda files: files | {"/data.json": files["/data.json"].replace(b"true", b"false")},
        "'data.json' is not what was signed",
    ),
    "the manifest": (
        lambda files: files | {"/.manifest": files["/.manifest"].replace(b"r1", b"r2")},
        "'.manifest' is not what was signed",
    ),
    "one more policy": (lambda files: files | {"/x.rego": b"package x"}, "'x.rego' is not signed"),
    "one more file that means nothing": (lambda files: files | {"/README": b""}, "'README' is not signed"),
    "one more that looks like signatures": (
        lambda files: files | {"/x.signatures.json": b"{}"},
        "'x.signatures.json' is not signed",
    ),
    "one policy less": (
        lambda files: {name: text for name, text in files.items() if name != "/call.rego"},
        "'call.rego' is signed, and missing from the bundle",
    ),
    "a policy of another name": (
        lambda files: {("/other.rego" if n == "/call.rego" else n): text for n, text in files.items()},
        "'other.rego' is not signed",
    ),
    "no signature": (
        lambda files: {name: text for name, text in files.items() if name != "/.signatures.json"},
        "it is not signed: there is no .signatures.json in it",
    ),
    "an empty signature": (
        lambda files: files | {"/.signatures.json": b'{"signatures": []}'},
        "does not hold exactly one signature",
    ),
    "two signatures": (
        lambda files: files | {"/.signatures.json": _tokens(files, 2)},
        "does not hold exactly one signature",
    ),
    "a signature by a plugin": (
        lambda files: files | {"/.signatures.json": files["/.signatures.json"].replace(b"_default", b"own")},
        "signed by a plugin",
    ),
    "no signature in the token": (
        lambda files: files | {"/.signatures.json": _token(files, lambda parts: [*parts[:2], ""])},
        "it was not signed with the key 'default' by RS256",
    ),
    "a token that is none": (
        lambda files: files | {"/.signatures.json": b'{"signatures": ["abc"]}'},
        "the signature cannot be read",
    ),
}


def _tokens(files: Files, count: int) -> bytes:
    return json.dumps({"signatures": json.loads(files["/.signatures.json"])["signatures"] * count}).encode()


def _token(files: Files, change: Callable[[list[str]], list[str]]) -> bytes:
    (token,) = json.loads(files["/.signatures.json"])["signatures"]
    return json.dumps({"signatures": [".".join(change(token.split(".")))]}).encode()


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_refused(build: Callable[..., bytes], keys: Keys, change: str) -> None:
    edit, fault = CHANGES[change]
    files = files_of(build(str(keys["RS256"][0]), "RS256"))
    assert fault in fault_of(packed(edit(files)), verifying(keys))


def test_an_unsigned_bundle_is_refused_where_verification_is_asked_for(
    build: Callable[..., bytes], keys: Keys
) -> None:
    content = build("", "")
    assert loaded(content, None).labels == (("b", "r1"),)
    assert fault_of(content, verifying(keys)) == "b: it is not signed: there is no .signatures.json in it"


def test_a_signed_bundle_is_refused_where_nothing_verifies_it(
    build: Callable[..., bytes], keys: Keys
) -> None:
    assert "there is no key to verify it with" in fault_of(build(str(keys["RS256"][0]), "RS256"), None)


@pytest.mark.parametrize(
    ("by", "asked", "fault"),
    [
        ("stranger", "RS256", "it was not signed with the key 'default' by RS256"),
        ("RS256", "PS256", "it was not signed with the key 'default' by PS256"),
        ("ES256", "RS256", "it was not signed with the key 'default' by RS256"),
    ],
)
def test_another_key_or_algorithm_is_refused(
    build: Callable[..., bytes], keys: Keys, by: str, asked: str, fault: str
) -> None:
    content = build(str(keys[by][0]), "ES256" if by == "ES256" else "RS256")
    assert fault in fault_of(content, verifying(keys, asked))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_the_token_does_not_choose_its_algorithm(keys: Keys, algorithm: str) -> None:
    files = {"a.rego": ALLOW.encode()}
    listed = [{"name": "a.rego", "hash": hashlib.sha256(files["a.rego"]).hexdigest(), "algorithm": "SHA-256"}]
    # The public key as the secret: what a verifier that believes the header would take.
    header, payload = ({"alg": algorithm, "kid": "default"}, {"files": listed})
    parts = [jwt.utils.base64url_encode(json.dumps(part).encode()).decode() for part in (header, payload)]
    mac = b""
    if algorithm == "HS256":
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
            ".".join(parts).encode(), keys["RS256"][1].read_bytes()
        )
    token = ".".join([*parts, jwt.utils.base64url_encode(mac).decode()])
    content = packed({**files, ".signatures.json": json.dumps({"signatures": [token]})})
    assert "it was not signed with the key 'default' by RS256" in fault_of(content, verifying(keys))


def test_a_key_that_is_not_here_is_named(keys: Keys) -> None:
    content = signed(keys, {"a.rego": ALLOW.encode()})
    fault = fault_of(content, verifying(keys, id="ours"))
    assert fault == "b: it is signed with a key named 'default'; the keys here are 'ours'"


def test_a_signature_that_names_no_key_is_tried_with_the_only_one(keys: Keys) -> None:
    files = {"a.rego": ALLOW.encode()}
    listed = [{"name": "a.rego", "hash": hashlib.sha256(files["a.rego"]).hexdigest(), "algorithm": "SHA-256"}]
    token = jwt.encode({"files": listed}, keys["RS256"][0].read_text(), "RS256")
    content = packed({**files, ".signatures.json": json.dumps({"signatures": [token]})})
    assert len(loaded(content, verifying(keys, id="ours")).modules) == 1
    (key,) = verifying(keys, id="ours").keys
    stranger = VerificationKey.of("other", "RS256", keys["stranger"][1].read_text())
    assert "named 'None'" in fault_of(content, Verification((key, stranger)))


@pytest.mark.parametrize(
    ("payload", "scope", "fault"),
    [
        ({"scope": "write"}, "write", None),
        ({"scope": "write"}, "", "it is signed for the scope 'write', not ''"),
        ({}, "write", "it is signed for the scope '', not 'write'"),
        ({"scope": ["write"]}, "write", "it is signed for the scope"),
        ({"files": []}, "", "'a.rego' is not signed"),
        ({"files": None}, "", "'a.rego' is not signed"),
        ({"files": [{"name": "a.rego"}]}, "", "lists something that is not a file with its digest"),
        ({"files": ["a.rego"]}, "", "lists something that is not a file with its digest"),
        (
            {"files": [{"name": "a.rego", "hash": "00", "algorithm": "MD5"}]},
            "",
            "'a.rego' is signed by 'MD5', which is none of SHA-256",
        ),
        (
            {"files": [{"name": "a.rego", "hash": "é", "algorithm": "SHA-256"}]},
            "",
            "'a.rego' is not what was signed",
        ),
        (
            {"files": [{"name": "a.rego", "hash": "00", "algorithm": "SHA-256"}] * 2},
            "",
            "the signature lists 'a.rego' twice",
        ),
    ],
)
def test_what_a_signature_has_to_say(
    keys: Keys, payload: dict[str, Any], scope: str, fault: str | None
) -> None:
    content = signed(keys, {"a.rego": ALLOW.encode()}, **payload)
    if fault is None:
        assert len(loaded(content, verifying(keys, scope=scope)).modules) == 1
    else:
        assert fault in fault_of(content, verifying(keys, scope=scope))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("data.json", b'{"a": NaN}', "'data.json' cannot be verified: NaN is not JSON"),
        ("data.json", b'{"a": "\\ud800"}', "'data.json' cannot be verified"),
        ("data.json", b"[" * 100_000, "'data.json' cannot be verified"),
        ("data.json", b"\xff", "'data.json' cannot be verified"),
        ("data.yaml", b"a: [1", "'data.yaml' cannot be verified: not valid YAML"),
    ],
)
def test_data_that_cannot_be_digested_are_refused(keys: Keys, name: str, content: bytes, fault: str) -> None:
    assert fault in fault_of(signed(keys, {name: content, "a.rego": ALLOW.encode()}), verifying(keys))


# -- keys ----------------------------------------------------------------------------------------


def test_a_key_fits_its_algorithm_and_is_strong_enough(keys: Keys) -> None:
    for algorithm, name, fault in (
        ("RS256", "weak", "no RSA key of 2048 bits or more"),
        ("RS256", "ES256", "no RSA key"),
        ("ES256", "RS256", "no key on the curve secp256r1"),
        ("ES256", "ES384", "no key on the curve secp256r1"),
    ):
        with pytest.raises(ValueError, match=fault):
            VerificationKey.of("k", algorithm, keys[name][1].read_text())
    with pytest.raises(ValueError, match="it is a private key: give its public half"):
        VerificationKey.of("k", "RS256", keys["RS256"][0].read_text())
    with pytest.raises(ValueError, match="not the PEM of a public key"):
        VerificationKey.of("k", "RS256", "secret")
    with pytest.raises(ValueError, match="shorter than 32 bytes"):
        VerificationKey.of("k", "HS256", "s" * 31)


def test_a_key_is_not_shown(keys: Keys) -> None:
    assert SECRET not in repr(verifying(keys, "HS256"))


# -- what is digested ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_the_digested_form_says_the_same_and_is_digested_alike(value: Any) -> None:
    form = canonical(json.dumps(value, indent=1).encode())
    assert json.loads(form) == value
    assert canonical(form) == form


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_keys_does_not_count(value: dict[str, int]) -> None:
    reverse = dict(reversed(value.items()))
    assert canonical(json.dumps(value).encode()) == canonical(json.dumps(reverse).encode())


def test_a_bundle_that_is_read_was_verified_byte_for_byte(keys: Keys) -> None:
    content = signed(keys, {"a.rego": ALLOW.encode()})
    plain = bytearray(gzip.decompress(content))
    at = plain.index(b"allow")
    plain[at] ^= 1
    assert "'a.rego' is not what was signed" in fault_of(gzip.compress(bytes(plain)), verifying(keys))
