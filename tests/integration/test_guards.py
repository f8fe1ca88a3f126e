"""Where and when a database may not be worked on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import DatabaseError
from orchestrator.store import Session, Store, claims, filesystems, guards, open_store, registry
from orchestrator.store import tables as t

MOUNTS = [
    ("/", "ext4"),
    ("/home", "nfs4"),
    ("/home/me/local", "xfs"),
    ("/mnt/win", "cifs"),
    ("/mnt/win", "ext4"),  # mounted over it
    ("/data", "btrfs"),
    ("/data", "fuse.sshfs"),
    ("/data-local", "ext4"),
    ("/vm", "9p"),
    ("/shared", "CIFS"),
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/roadtest.db", "nfs4, mounted at /home"),
        ("/home/roadtest.db", "nfs4"),
        ("/data/x/y/roadtest.db", "fuse.sshfs, mounted at /data"),
        ("/vm/r.db", "9p"),
        ("/shared/r.db", "CIFS"),
    ],
)
def test_a_network_file_system_is_refused_with_advice(path: str, kind: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        filesystems.require_local_disk(Path(path), MOUNTS)
    for part in (path, kind, "--db sqlite:////local/roadtest.db", "postgresql+psycopg://", "roadtest db copy"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    "path", ["/roadtest.db", "/home/me/local/r.db", "/mnt/win/r.db", "/data-local/r.db", "/homes/r.db", None]
)
def test_local_disks_pass(path: str | None) -> None:
    filesystems.require_local_disk(Path(path) if path else None, MOUNTS)


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here")
    mounts = [("/", "ext4"), (str(tmp_path / "here"), "nfs")]
    filesystems.require_local_disk(tmp_path / "r.db", mounts)
    with pytest.raises(DatabaseError, match="network file system"):
        filesystems.require_local_disk(tmp_path / "link" / "r.db", mounts)


def test_this_hosts_own_mounts_are_asked(tmp_path: Path) -> None:
    filesystems.require_local_disk(tmp_path / "r.db")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


def work(session: Session, host: str, boot: str, *, lease: float) -> None:
    """A coordinator with one unit."""
    sweep = registry.put_sweep(session, "s", {}, reference=None, margin=1.0)
    claims.register(session, host, sweep, host)
    session.run("UPDATE coordinator SET boot = :b WHERE id = :h", b=boot, h=host)
    unit = {"key": host, "kind": "evaluate", "spec": "{}", "config": "c", "state": "running", "coordinator_id": host}
    session.insert(t.unit, [{**unit, "epoch": 1, "lease_expires": session.time() + lease}])


@pytest.mark.parametrize(
    ("host", "boot", "lease", "refused"),
    [
        ("there", "another", 60.0, True),
        ("there", "another", -1.0, False),  # it is dead or has ended
        ("here", "another", 60.0, False),  # this host was started again: `expire_dead` ends its leases
        ("container", None, 60.0, False),  # the same kernel
    ],
)
def test_two_hosts_never_share_a_sqlite_file(
    store: Store, host: str, boot: str | None, lease: float, refused: bool
) -> None:
    with store.begin() as session:
        work(session, host, boot or claims.boot_id(), lease=lease)
    with store.read() as session:
        if refused and store.dialect == "sqlite":
            with pytest.raises(DatabaseError, match="coordinator there on host there works on this SQLite file"):
                guards.require_one_host(session, "here")
        else:
            guards.require_one_host(session, "here")
