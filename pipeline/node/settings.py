"""``node.yaml``: how a node is set up, validated as a whole before anything starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ct_cncl.pipeline.node.rules import Rule

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(frozen=True)
class TLS:
    """Certificates of one side: both sides show theirs and check the other's."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Peer:
    """An application entity to be called."""

    aet: str
    host: str
    port: int
    tls: TLS | None = None


@dataclass(frozen=True)
class Sender:
    """Who may call.

    Attributes:
        addresses: from which.
        commitment: where reports of storage commitment go; None: this sender gets none.
        count: who is asked, by C-FIND, how many objects a series has.
    """

    aet: str
    addresses: tuple[Network, ...] = LOOPBACK
    commitment: Peer | None = None
    count: Peer | None = None


@dataclass(frozen=True)
class Destination:
    """Where results go: a peer by C-STORE, or an address by STOW-RS.

    Attributes:
        url: of a DICOMweb service, up to and without "/studies".
        headers: sent along, as for authorization.
        syntax: how results are encoded: "as made", "plain" or "compressed" where the peer takes it.
        commit: results are done only when the peer has committed them.
        turn_s: seconds that one job may hold the destination; then those that wait come first, and the rest follows in its next turn.
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
    """What is taken before it is refused. Bytes and seconds.

    Attributes:
        stall_s: that a caller may be silent, and that one PDU may take.
        object_s: that one object may take from its first byte to its last.
        association_s: that an association may last; it ends between two objects.
        job_s: that a worker may work on one job.
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
    """When a series is complete, seconds.

    Attributes:
        quiet_s: after the last object, when every association that brought some has ended.
        open_s: after the last object, while one is still open.
        count_s: how long to wait for objects that a count says are missing.
    """

    quiet_s: float = 10.0
    open_s: float = 60.0
    count_s: float = 600.0


@dataclass(frozen=True)
class Retry:
    """Pauses between tries: the first, doubled each time up to the longest; how many before a person must look."""

    first_s: float = 5.0
    longest_s: float = 600.0
    tries: int = 150


@dataclass(frozen=True)
class Keep:
    """How long objects and results lie in the spool after they are done."""

    hours: float = 24.0
    bytes: int = 50 * 2**30
    remember_days: float = 365.0


@dataclass(frozen=True)
class PageSettings:
    """The page on this machine. ``hosts``: further names under which a proxy shows it."""

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
