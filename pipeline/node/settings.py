"""The settings in ``node.yaml``, which are validated as a whole before anything starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ct_cncl.pipeline.node.rules import Rule

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True)
class TLS:
    """Files of one side of a TLS connection. Both sides present a certificate and check the other's."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Peer:
    """An application entity to call."""

    aet: str
    host: str
    port: int
    tls: TLS | None = None


@dataclass(frozen=True)
class Sender:
    """An application entity that may call the node.

    Attributes:
        addresses: addresses that it may call from.
        commitment: where to send reports of storage commitment; None: this sender gets none.
        count: the peer to ask by C-FIND how many objects a series has; None: nobody is asked.
    """

    aet: str
    addresses: tuple[Network, ...] = LOOPBACK
    commitment: Peer | None = None
    count: Peer | None = None


@dataclass(frozen=True)
class Destination:
    """Where results go: a peer by C-STORE, or an address by STOW-RS.

    Attributes:
        url: URL of a DICOMweb service, without "/studies".
        headers: HTTP headers to send, for example for authorization.
        syntax: how to encode results: "as made", "plain", or "compressed" if the peer accepts it.
        commit: a delivery is complete only once the peer has committed the results.
        turn_s: seconds for which one job may hold the destination. Then waiting jobs come first, and the rest follows in the next turn.
    """

    name: str
    peer: Peer | None = None
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    syntax: str = "as made"
    commit: bool = False
    tls: TLS | None = None
    turn_s: float = 600.0


@dataclass(frozen=True)
class Limits:
    """Limits on what the node accepts: numbers, bytes (``_bytes``) and seconds (``_s``).

    Attributes:
        free_bytes: objects are refused while the disk has less space than this.
        stall_s: how long a caller may be silent, and how long one PDU may take.
        object_s: how long one object may take, from its first byte to its last.
        association_s: how long an association may last. It is ended between two objects.
        job_s: how long a worker may work on one job.
    """

    associations: int = 20
    connections: int = 100
    pdu_bytes: int = 128 * 2**10
    object_bytes: int = 2**30
    series_objects: int = 5000
    patient_bytes: int = 20 * 2**30
    free_bytes: int = 2 * 2**30
    stall_s: float = 60.0
    object_s: float = 900.0
    association_s: float = 4 * 3600.0
    job_s: float = 4 * 3600.0


@dataclass(frozen=True)
class Complete:
    """When a series counts as complete, in seconds after its last object.

    Attributes:
        quiet_s: if every association that brought objects has ended.
        open_s: while such an association is still open.
        count_s: if fewer objects have come than the series is known to have.
    """

    quiet_s: float = 10.0
    open_s: float = 60.0
    count_s: float = 600.0


@dataclass(frozen=True)
class Retry:
    """Pauses between tries: ``first_s``, doubled each time up to ``longest_s``. After ``tries``, the job fails."""

    first_s: float = 5.0
    longest_s: float = 600.0
    tries: int = 150


@dataclass(frozen=True)
class Keep:
    """How long to keep objects and results in the spool after a job is done, and how many bytes of them.

    Attributes:
        remember_days: how long a done job stays in the database. Until then, objects that are sent again are recognised.
    """

    hours: float = 24.0
    bytes: int = 50 * 2**30
    remember_days: float = 365.0


@dataclass(frozen=True)
class PageSettings:
    """The node's web page.

    Attributes:
        names: show patient names.
        hosts: further host names under which a proxy shows the page.
    """

    port: int = 8104
    names: bool = False
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeSettings:
    """All of ``node.yaml``."""

    file: Path
    aet: str
    host: str
    port: int
    spool: Path
    senders: tuple[Sender, ...]
    destinations: dict[str, Destination]
    rules: tuple[Rule, ...]
    workers: int = 1
    threads: int | None = None
    devices: tuple[str, ...] = ("auto",)
    others: str = "refuse"
    shadow: bool = False
    stop_s: float = 20.0
    ahead: bool = True
    tls: TLS | None = None
    limits: Limits = Limits()
    complete: Complete = Complete()
    retry: Retry = Retry()
    keep: Keep = Keep()
    page: PageSettings | None = PageSettings()
