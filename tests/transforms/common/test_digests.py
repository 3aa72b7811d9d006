import hashlib

import pytest

from ct_cncl.transforms.common.digests import digest_of, digest_of_result


def test_names_contents_and_their_order_count(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one"), b.write_bytes(b"two")
    own = digest_of([("a", a), ("b", b)])
    text = "".join(f"'{n}' 3 {hashlib.sha256(c).hexdigest()}\n" for n, c in (("a", b"one"), ("b", b"two")))
    assert (own.sha256, own.files, own.size) == (hashlib.sha256(text.encode()).hexdigest(), 2, 6)
    others = [
        digest_of([("b", b), ("a", a)]),
        digest_of([("a", b), ("b", a)]),
        digest_of([("a", a), ("b", b)], key=b"k"),
    ]
    assert len({own.sha256, *(other.sha256 for other in others)}) == 4


def test_a_folder_counts_its_files_and_what_is_gone_raises(tmp_path):
    (tmp_path / "r" / "s").mkdir(parents=True)
    (tmp_path / "r" / "s" / "x").write_bytes(b"1234")
    assert (digest_of_result(tmp_path / "r").files, digest_of_result(tmp_path / "r").size) == (1, 4)
    with pytest.raises(OSError, match="No such file"):
        digest_of_result(tmp_path / "none")
