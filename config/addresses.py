"""Who is calling: the address that sign-in attempts are counted for."""

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str:
    """The caller's address; behind our own proxy the one the proxy saw, which is the last in X-Forwarded-For.

    Earlier entries are whatever the caller claims, so they are never read.
    """
    seen_by_proxy = str(request.META.get("HTTP_X_FORWARDED_FOR", "")).rpartition(",")[2].strip()
    if settings.BEHIND_PROXY and seen_by_proxy:
        return seen_by_proxy
    return str(request.META.get("REMOTE_ADDR", ""))
