"""OPA bundles: policies and data in one archive, with a manifest and, where it is asked for, a signature.

The format is OPA's (https://www.openpolicyagent.org/docs/management-bundles).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.engines.sources.archives import ArchiveFault, shown, unpacked
from proxy.engines.sources.faults import PolicyFault, SignatureFault
from proxy.model import loads

if TYPE_CHECKING:  # cryptography takes its time to import, and few bundles are signed
    from proxy.engines.sources.signatures import Verification

SUFFIX = ".tar.gz"
SIGNATURES = ".signatures.json"
MANIFEST = ".manifest"
MAX_BUNDLE_BYTES = 16 << 20
"""How large an archive on disk may be; what it unpacks to has bounds of its own."""

_DATA_NAMES = frozenset({"data.json", "data.yaml", "data.yml"})
_V1_ONLY = (
    "only Rego version 1 is served: rewrite it with `opa fmt --write --v0-v1`, and build the bundle again"
)


@dataclass(frozen=True, slots=True)
class Roots:
    """The paths below which everything in a bundle lies."""

    paths: tuple[tuple[str, ...], ...] = ((),)

    def contain(self, path: tuple[str, ...]) -> bool:
        """Whether ``path`` is at or below one of the roots."""
        return any(path[: len(root)] == root for root in self.paths)

    def check_data(self, value: Any, at: tuple[str, ...] = ()) -> None:
        """Raise ``ValueError`` if some of this data lies outside."""
        if self.contain(at):
            return
        if not isinstance(value, dict) or not any(root[: len(at)] == at for root in self.paths):
            raise ValueError(f"data.{'.'.join(at)} is outside the bundle's roots ({self})")
        for key, item in value.items():
            self.check_data(item, (*at, key))

    def overlap(self, other: Roots) -> tuple[str, str] | None:
        """A root of either that lies at or below one of the other, written out."""
        for mine in self.paths:
            for theirs in other.paths:
                shorter = min(len(mine), len(theirs))
                if mine[:shorter] == theirs[:shorter]:
                    return _written(mine), _written(theirs)
        return None

    def __str__(self) -> str:
        return ", ".join(map(_written, self.paths))


def _written(root: tuple[str, ...]) -> str:
    return "/".join(root) or "everything"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read, and is what its signature says where one was asked for."""

    label: str
    revision: str
    """What the manifest calls it; empty where it does not."""
    roots: Roots
    files: Mapping[str, bytes]

    def served(self) -> Iterator[tuple[str, bytes]]:
        """Policies and data by name, in a fixed order; whatever else is in a bundle means nothing."""
        for name in sorted(self.files):
            if name.endswith(".rego") or name.rpartition("/")[2] in _DATA_NAMES:
                yield name, self.files[name]


@dataclass(frozen=True, slots=True)
class Archive:
    """A bundle that was not read yet: its bytes, or the file that holds them."""

    label: str
    """What an operator knows it by."""
    content: bytes | Path
    verification: Verification | None = None

    def read(self) -> Bundle:
        """Unpack, verify and check it; raises ``PolicyFault``."""
        try:
            return _bundle(self.label, unpacked(self._bytes()), self.verification)
        except OSError as exc:
            raise PolicyFault([f"{self.label}: {exc.strerror or exc}"]) from None
        except ValueError as exc:
            raise PolicyFault([f"{self.label}: {exc}"]) from None

    def _bytes(self) -> bytes:
        if isinstance(self.content, bytes):
            return self.content
        with self.content.open("rb") as stream:
            content = stream.read(MAX_BUNDLE_BYTES + 1)
        if len(content) > MAX_BUNDLE_BYTES:
            raise ArchiveFault(f"larger than {MAX_BUNDLE_BYTES} bytes, the most that a bundle may have")
        return content


def overlapping(one: Bundle, other: Bundle) -> str | None:
    """What is wrong with serving two bundles together, if anything is."""
    both = one.roots.overlap(other.roots)
    if both is None:
        return None
    return (
        f"{other.label}: its root ({both[1]}) overlaps one ({both[0]}) of {one.label}: "
        "give each bundle roots of its own in its .manifest"
    )


def _bundle(label: str, files: Mapping[str, bytes], verification: Verification | None) -> Bundle:
    if verification is not None:
        verification.verify(files)  # first of all: nothing of it is believed before
    elif SIGNATURES in files:
        raise SignatureFault(
            "it is signed, and there is no key to verify it with: "
            "name it in policies.bundles, with verification, instead of policies.paths"
        )
    _check_kind(files)
    manifest = _manifest(files.get(MANIFEST, b"{}"))
    bundle = Bundle(label, manifest.get("revision", ""), _roots(manifest), files)
    if not any(bundle.served()):
        raise ValueError("it holds neither policies nor data")
    return bundle


def _check_kind(files: Mapping[str, bytes]) -> None:
    """Refuse what is a bundle, and not one that a Rego engine serves."""
    names = {name.rpartition("/")[2] for name in files}
    if "patch.json" in names:
        raise ValueError("it is a delta bundle (patch.json), which changes another: serve whole bundles")
    if "policy.wasm" in names:
        raise ValueError("its policies are compiled to WebAssembly: build it with `opa build --target rego`")
    if "plan.json" in names and not any(name.endswith(".rego") for name in files):
        raise ValueError("it holds a plan in place of policies: build it with `opa build --target rego`")
    # OPA takes every such name for the manifest, the last one in force.
    if others := sorted(name for name in files if name.endswith(MANIFEST) and name != MANIFEST):
        raise ValueError(f"{shown(others[0])} is a second manifest: there is one, {MANIFEST} at the root")


def _manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest = loads(content)
    except ValueError as exc:
        raise ValueError(f"{MANIFEST}: {exc}") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("revision", ""), str):
        raise ValueError(f"{MANIFEST}: not an object with a text as its revision")
    if not manifest.get("revision", "").isprintable():
        raise ValueError(f"{MANIFEST}: the revision is not one line of printable text")
    if manifest.get("wasm"):
        raise ValueError("its policies are compiled to WebAssembly: build it with `opa build --target rego`")
    _check_versions(manifest)
    return manifest


def _check_versions(manifest: Mapping[str, Any]) -> None:
    version, by_file = manifest.get("rego_version"), manifest.get("file_rego_versions")
    if version is not None and (version is True or version != 1):
        raise ValueError(f"{MANIFEST}: rego_version is {shown(str(version))}: {_V1_ONLY}")
    for pattern, version in _items(by_file):
        if version is True or version != 1:
            raise ValueError(
                f"{MANIFEST}: {shown(pattern)} is of Rego version {shown(str(version))}: {_V1_ONLY}"
            )


def _items(by_file: Any) -> list[tuple[str, Any]]:
    if by_file is not None and not isinstance(by_file, dict):
        raise ValueError(f"{MANIFEST}: file_rego_versions is not an object")
    return list((by_file or {}).items())


def _roots(manifest: Mapping[str, Any]) -> Roots:
    named = manifest.get("roots")
    if named is None:
        return Roots()
    if not isinstance(named, list) or not all(isinstance(root, str) for root in named):
        raise ValueError(f"{MANIFEST}: roots is not a list of paths")
    paths = [tuple(part for part in root.strip("/").split("/") if part) for root in named]
    for place, path in enumerate(paths):
        if Roots((path,)).overlap(Roots(tuple(paths[:place]))):
            raise ValueError(f"{MANIFEST}: the roots overlap: {Roots(tuple(paths))}")
    return Roots(tuple(paths))
