"""Reading ``node.yaml``."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

from ct_cncl.pipeline.node.lined_yaml import Section, choice, flag, list_of, number, read_yaml, size, text, whole
from ct_cncl.pipeline.node.rules import Rule, read_rule
from ct_cncl.pipeline.node.settings import (
    LOOPBACK,
    TLS,
    Complete,
    Destination,
    Keep,
    Limits,
    Network,
    NodeSettings,
    PageSettings,
    Peer,
    Retry,
    Sender,
)


def read_settings(file: Path) -> NodeSettings:
    """Read and validate a configuration.

    Raises:
        NodeError: the configuration is invalid; names the file, line and key.
    """
    top = read_yaml(file)
    node = top.section("node")
    if node is None:
        raise top.error("node", "the section with aet, port and spool", "none")
    tls = _tls(node)
    senders = tuple(_sender(section, tls) for section in top.sections("senders"))
    if not senders:
        raise top.error("senders", "at least one sender (- aet: SCANNER)", "none")
    destinations = {name: _destination(name, section, tls) for name, section in top.named_sections("destinations")}
    rules = tuple(read_rule(section, k + 1, list(destinations)) for k, section in enumerate(top.sections("rules")))
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise top.error("rules", "a different name for each rule", rule.name, rule.line)
    top.close()
    return _node(node, tls, senders, destinations, rules)


def _node(
    node: Section,
    tls: TLS | None,
    senders: tuple[Sender, ...],
    destinations: dict[str, Destination],
    rules: tuple[Rule, ...],
) -> NodeSettings:
    settings = NodeSettings(
        file=node.file,
        aet=node.take("aet", _aet),
        host=node.take("host", _address, "127.0.0.1"),
        port=node.take("port", whole(0, 65535)),
        spool=node.take("spool", lambda value: (node.file.parent / text(value)).absolute()),
        senders=senders,
        destinations=destinations,
        rules=rules,
        workers=node.take("workers", whole(0, 64), 1),
        threads=node.take("threads", whole(1, 1024), None),
        devices=node.take("device", list_of(text), ("auto",)),
        others=node.take("others", choice("refuse", "store"), "refuse"),
        shadow=node.take("shadow", flag, False),
        stop_s=node.take("stop_s", number(0), 20.0),
        ahead=node.take("ahead", flag, True),
        tls=tls,
        limits=_limits(node.section("limits")),
        complete=_numbers(Complete, node.section("complete")),
        retry=_retry(node.section("retry")),
        keep=_keep(node.section("keep")),
        page=_page(node),
    )
    node.close()
    return settings


def _numbers(kind: Any, section: Section | None) -> Any:
    """Read a dataclass whose fields are all seconds, 0 or more."""
    if section is None:
        return kind()
    taken = {name: section.take(name, number(0), default) for name, default in vars(kind()).items()}
    section.close()
    return kind(**taken)


def _limits(section: Section | None) -> Limits:
    if section is None:
        return Limits()
    plain = Limits()
    taken = Limits(
        associations=section.take("associations", whole(1, 1000), plain.associations),
        connections=section.take("connections", whole(1, 10000), plain.connections),
        pdu_bytes=section.take("pdu_bytes", _pdu, plain.pdu_bytes),
        object_bytes=section.take("object_bytes", size, plain.object_bytes),
        series_objects=section.take("series_objects", whole(1), plain.series_objects),
        patient_bytes=section.take("patient_bytes", size, plain.patient_bytes),
        free_bytes=section.take("free_bytes", size, plain.free_bytes),
        stall_s=section.take("stall_s", number(1), plain.stall_s),
        object_s=section.take("object_s", number(1), plain.object_s),
        association_s=section.take("association_s", number(1), plain.association_s),
        job_s=section.take("job_s", number(1), plain.job_s),
    )
    section.close()
    return taken


def _pdu(value: Any) -> int:
    taken = size(value)
    if not 4096 <= taken <= 2**20:
        raise ValueError("4096 bytes to 1 MiB")
    return taken


def _retry(section: Section | None) -> Retry:
    if section is None:
        return Retry()
    taken = Retry(
        section.take("first_s", number(0.01), Retry.first_s),
        section.take("longest_s", number(0.01), Retry.longest_s),
        section.take("tries", whole(1), Retry.tries),
    )
    section.close()
    return taken


def _keep(section: Section | None) -> Keep:
    if section is None:
        return Keep()
    taken = Keep(
        section.take("hours", number(0), Keep.hours),
        section.take("bytes", size, Keep.bytes),
        section.take("remember_days", number(0), Keep.remember_days),
    )
    section.close()
    return taken


def _page(node: Section) -> PageSettings | None:
    section = node.section("page")
    if section is None:
        return PageSettings()
    on = section.take("on", flag, True)
    taken = PageSettings(
        section.take("port", whole(0, 65535), PageSettings.port),
        section.take("names", flag, False),
        section.take("hosts", list_of(text), ()),
    )
    section.close()
    return taken if on else None


def _tls(holder: Section) -> TLS | None:
    section = holder.section("tls")
    if section is None:
        return None
    taken = TLS(*(section.take(name, _file(section)) for name in ("certificate", "key", "authority")))
    section.close()
    return taken


def _file(section: Section) -> Any:
    def convert(value: Any) -> Path:
        path = section.file.parent / text(value)
        if not path.is_file():
            raise ValueError("a file that exists")
        return path.absolute()

    return convert


def _sender(section: Section, tls: TLS | None) -> Sender:
    taken = Sender(
        aet=section.take("aet", _aet),
        addresses=section.take("addresses", list_of(_network), LOOPBACK),
        commitment=_peer(section.section("commitment"), tls),
        count=_peer(section.section("count"), tls),
    )
    section.close()
    return taken


def _peer(section: Section | None, tls: TLS | None) -> Peer | None:
    if section is None:
        return None
    taken = _called(section, tls)
    section.close()
    return taken


def _called(section: Section, tls: TLS | None) -> Peer:
    own = _own_tls(section, tls)
    return Peer(section.take("aet", _aet), section.take("host", text), section.take("port", whole(1, 65535)), own)


def _own_tls(section: Section, tls: TLS | None) -> TLS | None:
    """Certificates for calling a peer: the section's own, or the node's if the section sets ``use_tls``."""
    return _tls(section) or (tls if section.take("use_tls", flag, False) else None)


def _destination(name: str, section: Section, tls: TLS | None) -> Destination:
    syntax = section.take("syntax", choice("as made", "plain", "compressed"), "as made")
    turn_s = section.take("turn_s", number(1), Destination.turn_s)
    line = section.line_of("url")
    url = section.take("url", text, "")
    if url:
        if not re.match(r"https?://[^/]+", url):
            raise section.error("url", "an address that begins with http:// or https://", url, line)
        found = section.section("headers")
        headers = {} if found is None else {key: found.take(key, text) for key in list(found._left)}
        taken = Destination(name, None, url.rstrip("/"), headers, syntax, tls=_own_tls(section, tls), turn_s=turn_s)
    else:
        commit = section.take("commit", flag, False)
        taken = Destination(name, _called(section, tls), syntax=syntax, commit=commit, turn_s=turn_s)
    section.close()
    return taken


def _aet(value: Any) -> str:
    title = text(value)
    if len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title of at most 16 plain characters")
    return title


def _address(value: Any) -> str:
    try:
        return str(ipaddress.ip_address(text(value)))
    except ValueError:
        raise ValueError("an IP address to listen on (127.0.0.1, or 0.0.0.0 for all)") from None


def _network(value: Any) -> Network:
    try:
        return ipaddress.ip_network(text(value), strict=False)
    except ValueError:
        raise ValueError("an IP address or network (10.1.2.3, 10.1.2.0/24)") from None
