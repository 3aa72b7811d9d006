"""TLS of both sides: each shows a certificate and checks the other's (BCP 195: TLS 1.2 or newer)."""

from __future__ import annotations

import ssl

from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.settings import TLS


def server_context(tls: TLS) -> ssl.SSLContext:
    """For those who call: without a certificate of the authority nobody gets further.

    Raises:
        NodeError: the files are no certificate and key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, tls)


def client_context(tls: TLS) -> ssl.SSLContext:
    """For calling: the other side's certificate must be of the authority and of the host that is called.

    Raises:
        NodeError: as above.
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
