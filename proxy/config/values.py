"""What the sections of the settings are made of: the section itself, secrets, URLs, header names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

MAX_SECRET_BYTES = 64 * 1024

# The headers in which clients carry a provider's key.
CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key", "api-key"})

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ConfigFault(ValueError):
    """The settings are wrong; ``faults`` names each as ``path: problem (cure)``. Never holds a secret."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Section(BaseModel):
    """A part of the settings: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # what was written in the wrong place may be a secret
        use_attribute_docstrings=True,
    )


class SecretRef(Section):
    """Where a secret is kept: exactly one of ``env`` and ``file``. The settings never hold its value."""

    env: str | None = None
    """Name of the environment variable that holds the secret."""
    file: Path | None = None
    """File that holds the secret; line ends after it are dropped."""

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret is in one place (write {env: NAME} or {file: PATH})")
        if self.env is not None and not _ENVIRONMENT_NAME.fullmatch(self.env):
            raise ValueError("env is not the name of a variable (write the name, not the secret itself)")
        return self

    def resolve(self, environ: Mapping[str, str]) -> str:
        """The secret itself; raises ``ConfigFault`` where it is missing, empty, or not one line of text."""
        secret = self.resolve_lines(environ)
        if not secret.isprintable():
            raise ConfigFault([f"{self.place}: the secret is not one line of printable text ({self._cure})"])
        return secret

    def resolve_lines(self, environ: Mapping[str, str]) -> str:
        """As ``resolve``, for what has several lines, such as a key in PEM."""
        secret = environ.get(self.env, "") if self.env is not None else self._read()
        if not secret:
            raise ConfigFault([f"{self.place}: no secret there ({self._cure})"])
        return secret

    @property
    def place(self) -> str:
        """Where the secret is kept, in words."""
        return f"environment variable {self.env}" if self.env is not None else f"file {self.file}"

    @property
    def _cure(self) -> str:
        return "set the variable" if self.env is not None else "put the secret, and nothing else, in the file"

    def _read(self) -> str:
        assert self.file is not None
        try:
            with self.file.open("rb") as stream:
                raw = stream.read(MAX_SECRET_BYTES + 1)
            if len(raw) > MAX_SECRET_BYTES:
                raise ConfigFault([f"{self.place}: larger than {MAX_SECRET_BYTES} bytes ({self._cure})"])
            return raw.decode().rstrip("\r\n")
        except OSError as exc:
            raise ConfigFault([f"{self.place}: {exc.strerror or exc} ({self._cure})"]) from None
        except UnicodeDecodeError:
            raise ConfigFault([f"{self.place}: not UTF-8 text ({self._cure})"]) from None


def _shape(value: Any) -> str:
    return "reference" if isinstance(value, Mapping | SecretRef) else "plain"


def _text(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds a line break or another unprintable character (write it as one line)")
    return value


Text = Annotated[str, AfterValidator(_text)]
"""One line of printable text."""

# The shape is told first, so that a fault names one problem and not one for every way to read the value.
by_shape = Discriminator(_shape)
OrSecret = Annotated[Annotated[Text, Tag("plain")] | Annotated[SecretRef, Tag("reference")], by_shape]
"""Plain text, or where a secret is kept."""


def header_name(value: str) -> str:
    """A header's name in lower case; raises ``ValueError`` for what is none (RFC 9110 5.1)."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("is not the name of a header (letters, digits and hyphens, as in x-user)")
    return value.lower()


HeaderName = Annotated[str, AfterValidator(header_name)]
Name = Annotated[Text, Field(min_length=1, max_length=256)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Bytes = Annotated[int, Field(ge=1024, le=2**30)]


def split_url(url: str, schemes: Sequence[str]) -> SplitResult:
    """The parts of ``url``; raises ``ValueError`` unless it has a host and no credentials."""
    wanted = " or ".join(f"{scheme}://HOST" for scheme in schemes)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or a broken IPv6 address
        usable = False
    if not usable or any(c.isspace() for c in url):
        raise ValueError(f"is not a URL with a host (write {wanted})")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds credentials (keep them as {env: NAME} or {file: PATH})")
    return parts


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on ``host``; of names, only localhost."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
