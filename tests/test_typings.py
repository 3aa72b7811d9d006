"""typings/ shows type checkers and editors the sources under their import names, and Python nothing."""

from importlib.machinery import PathFinder

from tiny_runs import ROOT


def test_each_import_name_is_linked_to_its_sources():
    links = {path.name: path.resolve() for path in (ROOT / "typings/ct_cncl").iterdir()}
    assert links == {name: ROOT / name for name in ("pipeline", "transforms")}


def test_nothing_there_is_imported_from_the_root_of_a_checkout():
    assert PathFinder.find_spec("ct_cncl", [str(ROOT)]) is None
