import os
from types import SimpleNamespace

import pytest

from seif_nemo.checkpointing import space
from seif_nemo.checkpointing.space import GIB, NoSpaceError, check_free_space


@pytest.fixture
def two_systems(tmp_path, monkeypatch):
    """Folders `a` with 10 GiB free and `b` with 3 GiB free, each a file system of its own."""
    free = {}
    for number, (name, gib) in enumerate((("a", 10), ("b", 3))):
        (tmp_path / name).mkdir()
        free[str(tmp_path / name)] = number, gib
    exists = os.path.exists

    def device_of(path):
        return next((found for start, found in free.items() if str(path).startswith(start)), (9, 1000))

    def stat(path, **_):
        if not exists(path):
            raise FileNotFoundError(2, "No such file", str(path))
        return SimpleNamespace(st_dev=device_of(path)[0])

    def statvfs(path):
        return SimpleNamespace(f_bavail=device_of(path)[1] * GIB // 4096, f_frsize=4096)

    monkeypatch.setattr(space.Path, "stat", stat)
    monkeypatch.setattr(space.os, "statvfs", statvfs)
    return tmp_path


def test_what_goes_to_one_file_system_is_added_up(two_systems):
    a, b = two_systems / "a", two_systems / "b"
    check_free_space([(a / "x" / "y", 6 * GIB), (a, 3 * GIB), (b, 2 * GIB)], min_free_bytes=GIB)
    with pytest.raises(NoSpaceError) as caught:
        check_free_space([(a / "x" / "y", 6 * GIB), (b, GIB), (a, 4 * GIB)], min_free_bytes=GIB)
    assert str(caught.value) == (
        f"{a}: a checkpoint needs 10.000 GiB and checkpoint.min_free_gib=1 must stay free, but 10.000 GiB are: "
        "make room, then start again"
    )
    with pytest.raises(NoSpaceError, match=f"{b}: a checkpoint needs 2.500 GiB"):
        check_free_space([(a, GIB), (b, 5 * GIB // 2)], min_free_bytes=GIB)
