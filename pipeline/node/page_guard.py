"""Protection of the page from other sites in the same browser: host names, origins, a token, and headers that limit what it may load."""

from __future__ import annotations

import hmac
import secrets
from typing import Any
from urllib.parse import urlsplit

LARGEST_FORM = 4096
_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with "no-referrer", browsers send "Origin: null" and forms would be refused
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Checks every request before it is handled.

    Args:
        hosts: host names under which a proxy shows the page, besides localhost.
    """

    def __init__(self, hosts: tuple[str, ...] = ()) -> None:
        self.hosts = {"127.0.0.1", "localhost", "::1", *(host.lower() for host in hosts)}
        self.token = secrets.token_urlsafe(32)

    def knows(self, token: str) -> bool:
        """Whether a form's token is the one of this page."""
        return hmac.compare_digest(token.encode(), self.token.encode())

    def refuses(self, method: str, headers: dict[str, str]) -> str:
        """The reason to refuse a request; empty if it is accepted.

        >>> guard = Guard()
        >>> guard.refuses("GET", {"host": "evil.example:8104"})
        'unknown host'
        >>> guard.refuses("POST", {"host": "localhost:8104", "origin": "http://evil.example"})
        'from another page'
        """
        host = headers.get("host", "")
        if (urlsplit(f"//{host}").hostname or "").lower() not in self.hosts:
            return "unknown host"
        if method in ("GET", "HEAD"):
            return ""
        if method != "POST":
            return "unknown method"
        origin = headers.get("origin", "")
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != host.lower():
            return "from another page"
        return ""

    def around(self, app: Any) -> Any:
        """Put an ASGI application behind the guard."""

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return
            pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
            refused = self.refuses(scope["method"], dict(pairs))
            if [name for name, _ in pairs].count("host") != 1:
                refused = "unknown host"

            async def sending(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        *message.get("headers", []),
                        *((k.encode(), v.encode()) for k, v in _HEADERS.items()),
                    ]
                await send(message)

            if refused:
                await sending(
                    {"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]}
                )
                await sending({"type": "http.response.body", "body": f"Refused: {refused}.\n".encode()})
                return
            await app(scope, receive, sending)

        return guarded
