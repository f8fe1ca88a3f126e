"""May SQLite write where this file is?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

from orchestrator.errors import DatabaseError

#: Types of file systems that other hosts may have mounted too: SQLite's write-ahead log lives in memory that only the
#: processes of one host share, and locks of files are not reliable there.
# fmt: off
NETWORK = frozenset({
    "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "webdav", "fuse.ceph",
    "fuse.ceph-fuse", "fuse.curlftpfs", "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys",
    "fuse.juicefs", "fuse.mount.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs", "fuse.smbnetfs",
    "fuse.sshfs",
})
# fmt: on


def require_local_disk(path: Path | None, mounts: Iterable[tuple[str, str]] | None = None) -> None:
    """Refuse to write to a SQLite file on a network file system; reading it is nobody's harm.

    Args:
        path: SQLite's file, which need not be there yet; None (PostgreSQL) passes.
        mounts: (mount point, type of file system) in the order of mounting; default this host's.

    Raises:
        DatabaseError: It is on one.
    """
    if path is None:
        return
    if mounts is None:
        mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    resolved = path.resolve()
    here = [(Path(point), kind) for point, kind in mounts if resolved.is_relative_to(point)]
    # A later mount on the same folder hides an earlier one.
    point, kind = max(reversed(here), key=lambda mount: len(mount[0].parts), default=(Path("/"), ""))
    if kind.lower() in NETWORK:
        raise DatabaseError(
            f"{resolved} is on a network file system ({kind}, mounted at {point}), where SQLite loses data when two "
            "hosts write; put the database on a local disk (--db sqlite:////local/roadtest.db), or use PostgreSQL "
            "(--db postgresql+psycopg://USER@HOST/DATABASE; `roadtest db copy` moves results there)."
        )
