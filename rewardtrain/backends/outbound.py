"""The one door to servers of others: only to hosts and ports an operator named, one address per call, nothing followed.

NESTBOX_MODEL_HOSTS lists model servers as host:port (`models.example.org:443, 127.0.0.1:8001, [::1]:8001, vllm:8000`);
nothing is allowed that is not listed, loopback neither. NESTBOX_SEARCH_URL, the search service's
address, lists itself. The name is resolved once, every address it has is checked, and the call goes to that address, so
that a name cannot change its meaning between check and call. A name may mean a private network or this machine, because
an operator listed it; link-local (cloud metadata), multicast and reserved addresses are reached only when the address
itself is listed.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from django.conf import settings

from feedback.errors import GenerationFailed

DEFAULT_PORTS = {"http": 80, "https": 443}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Destination:
    """Where a call goes: the checked address, and the name that belongs in `Host` and in the certificate."""

    scheme: str
    host: str
    port: int
    address: str
    path: str

    @property
    def url(self) -> str:
        """The URL to call, its host replaced by the address."""
        literal = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.scheme}://{literal}:{self.port}{self.path}"

    @property
    def host_header(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"


def destination(url: str) -> Destination:
    """A model server's URL that may be called now, resolved and pinned.

    Raises  GenerationFailed: for good when it is not allowed, for now when its name does not resolve
    """
    parts, host, port = _taken_apart(url, "The model's endpoint")
    if f"{_bracketed(host)}:{port}" not in allowed_hosts():
        raise _refused(f"{_bracketed(host)}:{port} is not among the model servers this installation may call")
    return Destination(parts.scheme, host, port, _checked_address(host, port), parts.path or "/")


def search_service() -> Destination:
    """The search service, resolved and pinned. That an operator named its address allows it.

    Raises  GenerationFailed, as `destination`
    """
    parts, host, port = _taken_apart(settings.SEARCH_URL, "NESTBOX_SEARCH_URL")
    return Destination(parts.scheme, host, port, _checked_address(host, port), parts.path or "/")


def _taken_apart(url: str, what: str) -> tuple[SplitResult, str, int]:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError as err:
        raise _refused(f"{what} is no URL") from err
    plain = url.isascii() and url.isprintable() and not set(url) & set(" \\")
    if parts.scheme not in DEFAULT_PORTS or not host or not plain:
        raise _refused(f"{what} should look like https://host:port/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _refused(f"{what} must not hold a name, a password, a query or a fragment")
    return parts, host, port if port is not None else DEFAULT_PORTS[parts.scheme]


def allowed_hosts() -> set[str]:
    """host:port as an operator listed them, in lower case."""
    return {entry.lower() for entry in settings.MODEL_HOSTS}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _checked_address(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise GenerationFailed(f"The server's name {host} cannot be found just now.") from err
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    is_literal = any(host == str(address) for address in addresses)
    if not is_literal and any(is_out_of_bounds(address) for address in addresses):
        raise _refused(f"The name {host} leads to an address that no name may lead to")
    return str(addresses[0])


def is_out_of_bounds(address: Address) -> bool:
    """Addresses that no listed name may mean: cloud metadata's kind, broadcasts, and v4 addresses in v6 clothes."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None or address in NAT64:
            return True
    return address.is_link_local or address.is_multicast or address.is_unspecified or _is_reserved(address)


NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _is_reserved(address: Address) -> bool:
    """Reserved for future use; not loopback, which IPv6 counts in."""
    return address.is_reserved and not address.is_loopback


def _refused(what: str) -> GenerationFailed:
    return GenerationFailed(f"{what}. An operator lists allowed servers in NESTBOX_MODEL_HOSTS.", permanent=True)
