"""Mutual TLS: each side presents a certificate and checks the other's (BCP 195: TLS 1.2 or newer)."""

from __future__ import annotations

import ssl

from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import TLS


def server_context(tls: TLS) -> ssl.SSLContext:
    """The context for incoming calls. Callers need a certificate that the authority has signed.

    Raises:
        NodeError: the files are not a valid certificate, key and authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, tls)


def client_context(tls: TLS) -> ssl.SSLContext:
    """The context for outgoing calls. The peer's certificate must be signed by the authority and match the host name.

    Raises:
        NodeError: the files are not a valid certificate, key and authority.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)


def _loaded(context: ssl.SSLContext, tls: TLS) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        context.load_verify_locations(tls.authority)
    except (ssl.SSLError, OSError) as error:
        raise NodeError(
            f"Expected a certificate, its key and an authority (PEM) in {tls.certificate}, {tls.key} and {tls.authority}, but got: {error}."
        ) from error
    return context
