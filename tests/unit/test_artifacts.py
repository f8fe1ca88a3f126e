from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from workers.artifacts import ArtifactStore
from workers.errors import ArtifactError

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(params=["path", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    urls = {"path": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path.name}"}
    return ArtifactStore(urls[request.param])


def test_rows_come_back_read_only_with_url_checksum_and_manifest(store: ArtifactStore) -> None:
    assert not store.exists("e1/0-4")
    url, sha256, n_bytes = store.write("e1/0-4", ROWS, {"recipe": {"encoder": "x"}})
    assert store.exists("e1/0-4")
    assert sha256 == hashlib.sha256(ROWS.tobytes()).hexdigest()
    rows = store.read("e1/0-4", sha256)
    np.testing.assert_array_equal(rows, ROWS)
    assert not rows.flags.writeable
    assert url.endswith("e1/0-4.npy") and "://" in url
    assert store._fs.size(url) == n_bytes
    manifest = json.loads(store._fs.cat_file(url.removesuffix(".npy") + ".json"))
    assert manifest == {"recipe": {"encoder": "x"}, "sha256": sha256, "dtype": "<f4", "shape": [4, 3]}


def test_checksum_is_of_rows_whatever_their_layout_in_memory(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    assert store.write("a", np.asfortranarray(ROWS), {})[1] == store.write("b", ROWS, {})[1]


def test_local_rows_are_memory_mapped(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    _, sha256, _ = store.write("a", ROWS, {})
    assert isinstance(store.read("a", sha256), np.memmap)


def test_missing_and_truncated_artefacts_are_noticed(store: ArtifactStore) -> None:
    _, sha256, n_bytes = store.write("a", ROWS, {})
    path = store._path("a", ".npy")
    whole = store._fs.cat_file(path)
    for kept in (0, 5, n_bytes - len(ROWS.tobytes()), n_bytes - 1):
        store._fs.pipe_file(path, whole[:kept])
        with pytest.raises(ArtifactError, match=r"a\.npy: the artefact"):
            store.read("a", sha256)
    store._fs.rm(path)
    with pytest.raises(ArtifactError, match="missing"):
        store.read("a", sha256)


def test_one_flipped_byte_anywhere_never_gives_other_rows(store: ArtifactStore) -> None:
    _, sha256, n_bytes = store.write("a", ROWS, {})
    path = store._path("a", ".npy")
    whole = store._fs.cat_file(path)
    refused = 0
    for position in range(n_bytes):
        torn = bytearray(whole)
        torn[position] ^= 1
        store._fs.pipe_file(path, bytes(torn))
        try:
            np.testing.assert_array_equal(store.read("a", sha256), ROWS)
        except ArtifactError:
            refused += 1
    assert refused >= ROWS.nbytes


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="damaged"):
        ArtifactStore(tmp_path).read("a", "0" * 64)


@pytest.mark.parametrize("name", ["", "../a", "a/../b", "/a", "a//b", ".a", "a b", "a\nb"])
def test_names_stay_inside_the_store(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="no name"):
        ArtifactStore(tmp_path).write(name, ROWS, {})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_stays_an_oserror_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync", full) if step == "fsync" else (Path, "replace", full)))
    with pytest.raises(OSError, match="No space left") as caught:
        ArtifactStore(tmp_path).write("e/a", ROWS, {})
    assert caught.value.errno == errno.ENOSPC
    assert list((tmp_path / "e").iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: really_open(Path("/dev/full"), mode))
    with pytest.raises(OSError) as caught:
        ArtifactStore(tmp_path).write("a", ROWS, {})
    assert caught.value.errno == errno.ENOSPC


def test_a_failed_rewrite_leaves_the_old_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(tmp_path)
    _, sha256, _ = store.write("a", ROWS, {})

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", interrupted)
        store.write("a", ROWS + 1, {})
    np.testing.assert_array_equal(store.read("a", sha256), ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.npy"]


def _write_often(folder: str, value: int) -> None:
    for _ in range(20):
        ArtifactStore(folder).write("e/a", np.full((200, 16), value, dtype=np.float32), {})


def test_racing_writers_end_with_one_whole_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(str(tmp_path), value)) for value in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    last = np.load(tmp_path / "e" / "a.npy")
    assert last.shape == (200, 16) and last[0, 0] in (1, 2) and np.ptp(last) == 0
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["a.json", "a.npy"]
