"""TLS: both sides show certificates of one authority; anybody else gets nowhere, and nobody else waits for them."""

import datetime as dt
import ipaddress
import socket
import ssl

import pytest
from dicom_archive import write_series
from tiny_node import PATIENCE_S, Destination, config, files_of, running, send, until
from tiny_weights import Add, scripted

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")
pytest.importorskip("cryptography", reason="needs cryptography to make certificates")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ct_cncl.pipeline.node.settings import TLS
from ct_cncl.pipeline.node.tls import client_context, server_context


class Authority:
    """Signs certificates for this machine."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        made = self._signed(self.name, self.key, dt.timedelta(days=2), x509.BasicConstraints(True, None))
        self.file.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def _signed(self, subject, key, valid, constraints, started=dt.timedelta(days=-3)):
        now = dt.datetime.now(dt.timezone.utc)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now + started).not_valid_after(now + valid)
            .add_extension(constraints, critical=True).add_extension(x509.SubjectAlternativeName(names), critical=False)
        )  # fmt: skip
        return builder.sign(self.key, hashes.SHA256())

    def certificate(self, name, *, valid=dt.timedelta(days=1)):
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._signed(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, valid, x509.BasicConstraints(False, None)
        )
        certificate, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return TLS(certificate, private, self.file)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority"), "hospital")
    stranger = Authority(tmp_path_factory.mktemp("stranger"), "stranger")
    foreign = stranger.certificate("foreign")
    return {
        "node": authority.certificate("node"),
        "scanner": authority.certificate("scanner"),
        "pacs": authority.certificate("pacs"),
        "expired": authority.certificate("expired", valid=dt.timedelta(days=-1)),
        "foreign": TLS(foreign.certificate, foreign.key, authority.file),
    }


def words(tls):
    return {name: str(getattr(tls, name)) for name in ("certificate", "key", "authority")}


@pytest.fixture(scope="module")
def whole(tls, tmp_path_factory):
    """A node with TLS on both sides, and its destination."""
    folder = tmp_path_factory.mktemp("node")
    weights = scripted(Add(25.0), folder / "add.ts")
    with Destination(context=server_context(tls["pacs"])) as there:
        target = {"pacs": {"aet": "PACS", "host": "127.0.0.1", "port": there.port, "tls": words(tls["node"])}}
        path = config(folder, there, weights, tls=words(tls["node"]), destinations=target, limits={"stall_s": 5})
        with running(path) as node:
            yield node, there


def test_in_and_out_over_tls(whole, tls, tmp_path):
    node, there = whole
    write_series(tmp_path, 1)
    assert until(lambda: send(files_of(tmp_path), node.port, tls=client_context(tls["scanner"])) == [0, 0, 0])
    assert until(lambda: node.states() == ["done"])
    assert len(there.times) == 3


@pytest.mark.parametrize("who", ["expired", "foreign"])
def test_certificates_that_are_no_good(whole, tls, tmp_path, who):
    node, _ = whole
    write_series(tmp_path, 2)
    assert send(files_of(tmp_path), node.port, tls=client_context(tls[who])) == [None] * 3
    assert "refused a connection from 127.0.0.1: " in node.log.read_text()


def test_no_certificate_and_no_tls(whole, tls, tmp_path):
    node, _ = whole
    write_series(tmp_path, 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls["scanner"].authority)
    assert send(files_of(tmp_path), node.port, tls=context) == [None] * 3
    assert send(files_of(tmp_path), node.port) == [None] * 3


def test_old_tls(whole, tls):
    node, _ = whole
    context = client_context(tls["scanner"])
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", node.port), PATIENCE_S) as plain:  # noqa: PT011
        context.wrap_socket(plain, server_hostname="localhost")


def test_who_says_nothing_keeps_nobody_waiting(whole, tls, tmp_path):
    """A handshake that never comes is waited for in a thread of its own: one after the other, 60 of them would take longer than a sender waits."""
    node, _ = whole
    write_series(tmp_path, 3)
    held = [socket.create_connection(("127.0.0.1", node.port), PATIENCE_S) for _ in range(60)]
    try:
        assert until(lambda: send(files_of(tmp_path), node.port, tls=client_context(tls["scanner"])) == [0, 0, 0])
        for one in held:
            one.settimeout(PATIENCE_S)
            assert one.recv(100) == b""
    finally:
        for one in held:
            one.close()
    assert "Traceback" not in node.log.read_text()


def test_a_destination_with_another_certificate_gets_nothing(tls, tmp_path):
    from ct_cncl.pipeline.node.calling import called
    from ct_cncl.pipeline.node.errors import NodeError
    from ct_cncl.pipeline.node.settings import Peer

    from pynetdicom import AE  # isort: skip

    stranger = Authority(tmp_path, "impostor")
    with Destination(context=server_context(stranger.certificate("pacs"))) as there:
        ae = AE("NODE")
        ae.add_requested_context("1.2.840.10008.1.1")
        with (
            pytest.raises(NodeError, match="to answer"),
            called(ae, Peer("PACS", "127.0.0.1", there.port, tls["node"])),
        ):
            pass
