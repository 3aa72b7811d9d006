import os

import pytest
from small_disk import small_disk

from ct_cncl.transforms.common.disk import allocate
from ct_cncl.transforms.common.errors import OutputError


@pytest.mark.parametrize("without", [False, True])
def test_all_bytes_have_room_and_what_was_written_stays(tmp_path, monkeypatch, without):
    if without:
        monkeypatch.delattr(os, "posix_fallocate")
    path = tmp_path / "x"
    path.write_bytes(b"head")
    allocate(path, 1 << 20)
    assert path.read_bytes() == b"head" + bytes((1 << 20) - 4)
    assert path.stat().st_blocks * 512 >= 1 << 20


@pytest.mark.parametrize("without", [False, True])
def test_a_small_disk_is_one_line(tmp_path, monkeypatch, without):
    if without:
        monkeypatch.delattr(os, "posix_fallocate")
    with small_disk(tmp_path / "disk", "1m") as disk:
        (disk / "x").touch()
        with pytest.raises(
            OutputError, match=r"Expected 2\.0 MiB of free space in .*disk for x, but got: No space left"
        ) as caught:
            allocate(disk / "x", 2 << 20)
        assert "\n" not in str(caught.value)
