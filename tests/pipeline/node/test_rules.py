"""Rules: first match, ranges, patterns, what is never denoised, and errors that name line and key."""

import pytest
from pydicom.dataset import Dataset

pytest.importorskip("pynetdicom", reason="needs ct-cncl[node]")

from ct_cncl.pipeline.node.errors import NodeError
from ct_cncl.pipeline.node.facts import Facts, facts_of
from ct_cncl.pipeline.node.origin import origin_and_reason
from ct_cncl.pipeline.node.read_settings import read_settings
from ct_cncl.pipeline.node.rules import decide

HEAD = """\
node:
  aet: NODE
  port: 11112
  spool: spool
senders:
  - aet: CT1
destinations:
  pacs: {aet: PACS, host: pacs.example, port: 104}
"""


def settings(tmp_path, text, head=HEAD):
    (tmp_path / "node.yaml").write_text(head + text)
    return read_settings(tmp_path / "node.yaml")


def rules(tmp_path, text):
    return settings(tmp_path, "rules:\n" + text).rules


RULES = """\
  - name: sharp
    match: {kernel: [B7*, "Br6?"], kvp: 100-120, slice_thickness: "<=1.5"}
    strength: 0.5
    send: pacs
  - name: maker
    match: {manufacturer: "*siemens*", body_part: CHEST, ae: CT1, image_type: [PRIMARY, AXIAL]}
    precision: auto
    save: noise
    send: [pacs]
  - name: never
    match: {series_description: "*scout*"}
    do: ignore
  - name: away
    match: {study_description: secret}
    do: refuse
"""
SHARP = Facts(kernel="B70f", kvp=120.0, slice_thickness=1.5)


@pytest.mark.parametrize(
    ("facts", "ae", "name", "do"),
    [
        (SHARP, "CT1", "sharp", "denoise"),
        (Facts(kernel="br64", kvp=100.0, slice_thickness=0.6), "CT2", "sharp", "denoise"),
        (Facts(kernel="B70f", kvp=120.5, slice_thickness=1.5), "CT1", "", "ignore"),
        (Facts(kernel="B70f", kvp=None, slice_thickness=1.5), "CT1", "", "ignore"),
        (Facts(kernel="B30f", kvp=120.0, slice_thickness=1.5), "CT1", "", "ignore"),
        (Facts(manufacturer="SIEMENS Healthineers", body_part="CHEST", image_type=("ORIGINAL", "PRIMARY", "AXIAL")), "CT1", "maker", "denoise"),
        (Facts(manufacturer="SIEMENS Healthineers", body_part="CHEST", image_type=("ORIGINAL", "PRIMARY", "AXIAL")), "CT2", "", "ignore"),
        (Facts(manufacturer="SIEMENS", body_part="CHEST", image_type=("ORIGINAL", "PRIMARY")), "CT1", "", "ignore"),
        (Facts(series_description="Scout lateral"), "CT1", "never", "ignore"),
        (Facts(study_description="SECRET"), "CT1", "away", "refuse"),
    ],
)  # fmt: skip
def test_the_first_match_wins(tmp_path, facts, ae, name, do):
    decision = decide(rules(tmp_path, RULES), facts, ae)
    assert (decision.rule, decision.action.do) == (name, do)


def test_the_action_is_the_rules_own(tmp_path):
    sharp, maker = rules(tmp_path, RULES)[:2]
    assert (sharp.action.strength, sharp.action.precision, sharp.action.save, sharp.action.send) == (
        0.5,
        "fp32",
        (),
        ("pacs",),
    )
    assert (maker.action.strength, maker.action.precision, maker.action.save) == (1.0, "auto", ("noise",))
    assert maker.line == 14


def test_reasons_say_what_was_wanted_and_what_is_there(tmp_path):
    reasons = decide(rules(tmp_path, RULES), Facts(kernel="B30f"), "CT1").reasons
    assert reasons[0] == "sharp: no, kernel is B30f, wanted B7* or Br6?"
    assert reasons[1] == "maker: no, ae is CT1, wanted CT1" or reasons[1].startswith(
        "maker: no, manufacturer is not stated"
    )
    assert reasons[-1] == "no rule matches: ignored"


@pytest.mark.parametrize("origin", ["own", "localizer", "reformat", "derived"])
def test_what_is_no_original_is_never_denoised_unless_a_rule_says_so(tmp_path, origin):
    facts = Facts(origin=origin, origin_says="so it says")
    plain = rules(tmp_path, "  - name: all\n    send: pacs\n")
    assert decide(plain, facts, "CT1").action.do == "ignore"
    insisting = rules(tmp_path, f"  - name: all\n    match: {{origin: [original, {origin}]}}\n    send: pacs\n")
    decision = decide(insisting, facts, "CT1")
    assert (decision.action.do, decision.action.derived) == ("denoise", True)


def header(image_type=None, **more):
    made = Dataset()
    if image_type is not None:
        made.ImageType = image_type
    for name, value in more.items():
        setattr(made, name, value)
    return made


def code(value, scheme):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = value, scheme
    return item


def equipment(model):
    item = Dataset()
    item.ManufacturerModelName = model
    return item


def enhanced_own():
    image, group = Dataset(), Dataset()
    image.DerivationCodeSequence = [code("CNCL", "99CTCNCL")]
    group.DerivationImageSequence = [image]
    return header(["DERIVED", "PRIMARY", "VOLUME", "NONE"], PerFrameFunctionalGroupsSequence=[group])


@pytest.mark.parametrize(
    ("made", "origin"),
    [
        (header(["ORIGINAL", "PRIMARY", "AXIAL"]), "original"),
        (header(["ORIGINAL", "SECONDARY", "AXIAL"]), "original"),
        (header(), "original"),
        (header(["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (header(["DERIVED", "SECONDARY"]), "derived"),
        (header(["DERIVED", "SECONDARY", "AXIAL", "MIP"]), "derived"),
        (header(["ORIGINAL", "SECONDARY", "AXIAL", "AVERAGE"]), "derived"),
        (header(["DERIVED", "SECONDARY", "SCREEN SAVE"]), "derived"),
        (header(["DERIVED", "SECONDARY", "MPR"]), "reformat"),
        (header(["ORIGINAL", "PRIMARY", "AXIAL"], DerivationCodeSequence=[code("LOWDOSE", "99CTCNCL")]), "original"),
        (header(["DERIVED", "PRIMARY", "AXIAL"], DerivationCodeSequence=[code("LOWDOSE", "99CTCNCL")]), "original"),
        (header(["DERIVED", "SECONDARY", "AXIAL"], DerivationCodeSequence=[code("CNCL", "99CTCNCL")]), "own"),
        (header(["DERIVED", "SECONDARY", "AXIAL"], ContributingEquipmentSequence=[equipment("ct-cncl")]), "own"),
        (header(["ORIGINAL", "PRIMARY", "AXIAL"], ContributingEquipmentSequence=[equipment("gateway")]), "original"),
        (enhanced_own(), "own"),
    ],
)
def test_origins(made, origin):
    assert origin_and_reason(made)[0] == origin
    assert facts_of(made).origin == origin


ERRORS = [
    ("rules:\n  - name: a\n    match: {kvp: high}\n    send: pacs\n", r"line 11: rules\.1\.match\.kvp: expected a number or a range .* but got 'high'"),
    ("rules:\n  - name: a\n    match:\n      kernal: B30\n    send: pacs\n", r"line 12: rules\.1\.match\.kernal: .* did you mean kernel\?"),
    ("rules:\n  - name: a\n    strenght: 0.5\n    send: pacs\n", r"line 11: rules\.1\.strenght: .* did you mean strength\?"),
    ("rules:\n  - name: a\n    strength: 2\n    send: pacs\n", r"line 11: rules\.1\.strength: expected a number from 0 to 1, but got 2"),
    ("rules:\n  - name: a\n    send: pax\n", r"line 11: rules\.1\.send: expected one of pacs, but got 'pax'"),
    ("rules:\n  - name: a\n    save: everything\n    send: pacs\n", r"rules\.1\.save: expected one of noise, content, disagreement, removed"),
    ("rules:\n  - name: a\n", r"line 10: rules\.1\.send: expected destinations to send to"),
    ("rules:\n  - name: a\n    weights: no.pt\n    send: pacs\n", r"line 11: rules\.1\.weights: expected a weights file that exists"),
    ("rules:\n  - name: a\n    target_dose: 0.5\n    send: pacs\n", r"line 11: rules\.1\.target_dose: expected a number of at least 1, but got 0.5"),
    ("rules:\n  - name: a\n    target_dose: 2\n    strength: 1\n    send: pacs\n", r"line 12: rules\.1\.strength: expected a strength or a target_dose, but got 'both'"),
    ("rules:\n  - name: a\n    send: pacs\n    send: pacs\n", r"line 12: rules\.1\.send: expected the key once, but got it twice"),
    ("rules:\n  - name: a\n    send: pacs\n  - name: a\n    send: pacs\n", r"a different name for each rule, but got 'a'"),
    ("rules: all\n", r"line 9: rules: expected a list"),
    ("rules:\n  - name: [\n", r"line 1[0-9]: expected YAML"),
    ("page: {port: 1}\n", r"line 9: page: expected a known key"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ERRORS)
def test_errors_name_line_and_key(tmp_path, text, message):
    with pytest.raises(NodeError, match=message) as error:
        settings(tmp_path, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.replace("11112", "a lot"), r"line 3: node\.port: expected a whole number from 0 to 65535, but got 'a lot'"),
        (HEAD.replace("  aet: NODE\n", ""), r"node\.aet: expected a value, but the key is missing"),
        (HEAD.replace("NODE", "A title of more than 16"), r"line 2: node\.aet: expected an AE title of at most 16"),
        (HEAD.replace("senders:\n  - aet: CT1\n", ""), r"senders: expected at least one sender"),
        (HEAD.replace("- aet: CT1", "- {aet: CT1, addresses: nowhere}"), r"line 6: senders\.1\.addresses: expected an IP address"),
        (HEAD.replace("spool: spool", "spool: spool\n  limits: {object_bytes: huge}"), r"line 5: node\.limits\.object_bytes: expected a number of bytes"),
        (HEAD.replace("port: 104", "port: 0"), r"line 8: destinations\.pacs\.port"),
        (HEAD.replace("spool: spool", "spool: spool\n  tls: {certificate: a, key: b, authority: c}"), r"line 5: node\.tls\.certificate: expected a file"),
    ],
)  # fmt: skip
def test_errors_of_the_set_up_too(tmp_path, head, message):
    with pytest.raises(NodeError, match=message):
        settings(tmp_path, "", head)


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(NodeError, match="Pass --config FILE"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(NodeError, match="Pass --config FILE"):
        read_settings(tmp_path)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(NodeError, match="the file is empty"):
        read_settings(tmp_path / "empty.yaml")


def test_a_set_up_in_full(tmp_path):
    head = HEAD.replace(
        "spool: spool", "spool: s\n  shadow: true\n  limits: {object_bytes: 2 GiB}\n  keep: {hours: 48, bytes: 1.5 TiB}"
    )
    head = head.replace(
        "- aet: CT1", "- {aet: CT1, addresses: [10.0.0.0/8, 127.0.0.1], count: {aet: P, host: p, port: 105}}"
    )
    found = settings(tmp_path, "  web: {url: 'http://web/dicom-web/', headers: {Authorization: Bearer x}}\n", head)
    assert (found.limits.object_bytes, found.keep.hours, found.keep.bytes) == (2**31, 48, 3 * 2**39)
    assert found.devices == ("auto",)
    assert (found.shadow, found.spool) == (True, tmp_path / "s")
    assert found.senders[0].count.port == 105
    assert [str(network) for network in found.senders[0].addresses] == ["10.0.0.0/8", "127.0.0.1/32"]
    web = found.destinations["web"]
    assert (web.url, web.headers, web.peer) == ("http://web/dicom-web", {"Authorization": "Bearer x"}, None)
    assert "Bearer" not in repr(found)
