"""What doctor makes of clocks, disks, versions and stores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import checkup
from orchestrator.checkup import NodeReport, check_node, check_up, node_findings

HERE = {"python": "3.11.7", "roadtest": "0.1.0", "ray": "2.60.0"}
URL = "postgresql+psycopg://me@host/db"


def report(**changes: Any) -> NodeReport:
    fine: dict[str, Any] = {
        "host": "n1", "versions": HERE, "disks": {"/tmp": 5_000_000_000}, "port_error": None, "login_error": None,
        "wrote": ("probe", "sha"), "write_error": None,
    }  # fmt: skip
    return {**fine, **changes}  # type: ignore[typeddict-item, return-value]


@pytest.mark.parametrize(
    ("changes", "head", "check", "ok", "words"),
    [
        ({}, True, "versions", True, "roadtest 0.1.0, ray 2.60.0, python 3.11.7"),
        ({"versions": {**HERE, "ray": "2.59.0"}}, False, "versions", False, "ray 2.59.0 (here 2.60.0)"),
        (
            {"versions": {"python": "3.11.7", "ray": "2.60.0"}},
            False,
            "versions",
            False,
            "roadtest missing (here 0.1.0)",
        ),
        ({"versions": {**HERE, "torch": "2.4"}}, False, "versions", False, "torch 2.4 (here missing)"),
        ({}, True, "database", True, "login works"),
        ({"port_error": "refused", "login_error": "refused"}, False, "database", False, "does not answer: refused"),
        ({"login_error": "no password"}, True, "database", False, "but no login: no password"),
        ({"login_error": "no password"}, False, "database", True, "Only the head needs a login"),
        ({}, False, "free disk", True, "5.0 GB at /tmp"),
        ({"disks": {"/tmp": 999_999_999}}, False, "free disk", False, "1.0 GB at /tmp"),
    ],
)
def test_what_is_said_of_a_node(changes: dict[str, Any], head: bool, check: str, ok: bool, words: str) -> None:
    found = node_findings(report(**changes), node="10.0.0.1", head=head, versions=HERE, database=URL)
    (finding,) = [one for one in found if one.name == check]
    assert finding.ok is ok
    assert words in finding.detail
    assert finding.node == "10.0.0.1"


def test_sqlite_is_no_business_of_a_node() -> None:
    found = node_findings(report(), node="n", head=False, versions=HERE, database=None)
    assert [one.name for one in found] == ["versions", "free disk"]


@pytest.mark.parametrize(
    ("before", "there", "after", "ok"),
    [
        (100.0, 100.1, 100.2, True),
        (100.0, 102.0, 100.0, True),
        (100.0, 102.1, 100.0, False),
        (100.0, 97.9, 100.0, False),
        (100.0, 104.9, 106.0, True),  # read at some time between: anything within is no skew
        (100.0, 108.1, 106.0, False),  # 5.1 s from the middle, of which 3 s may be the way
        (100.0, 107.9, 106.0, True),
    ],
)
def test_clocks(before: float, there: float, after: float, ok: bool) -> None:
    assert checkup._skew("clock", before, there, after, than="here").ok is ok


def by_name(url: str | None = None) -> dict[str, checkup.Finding]:
    return {finding.name: finding for finding in check_up(url)}


def test_the_artefact_store_is_tried_and_left_clean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name()["artefact store"].ok
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("ROADTEST_ARTIFACTS", "memory://doctor")
    assert by_name()["artefact store"].ok
    assert checkup._store("memory://doctor").files() == []
    (folder / "file").write_text("")
    monkeypatch.setenv("ROADTEST_ARTIFACTS", f"file://{folder}/file/below")
    assert not by_name()["artefact store"].ok
    monkeypatch.setenv("ROADTEST_ARTIFACTS", "nosuch://me:s3cret@host/x")
    finding = by_name()["artefact store"]
    assert not finding.ok
    assert "s3cret" not in finding.detail


def test_sqlite_on_a_network_file_system(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name()["database"].ok
    mount = SimpleNamespace(mountpoint="/", fstype="nfs4")
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: [mount])
    finding = by_name()["database"]
    assert not finding.ok
    assert "nfs4" in finding.detail


def test_postgresql_has_a_clock(folder: Path, postgres_url: str) -> None:
    found = by_name(postgres_url)
    assert found["clock"].ok
    assert "from the database's" in found["clock"].detail
    assert "a run makes it" in found["database"].detail


def test_a_node_looks_at_itself(folder: Path, postgres_url: str) -> None:
    (folder / "shared").mkdir()
    seen = check_node(postgres_url, str(folder / "shared"))
    assert (seen["port_error"], seen["login_error"], seen["write_error"]) == (None, None, None)
    assert seen["wrote"] is not None
    assert checkup._read_probe(str(folder / "shared"), *seen["wrote"]) is None
    checkup._delete_probes(str(folder / "shared"), [seen["wrote"]])
    assert list((folder / "shared").iterdir()) == []

    alone = check_node("postgresql+psycopg://me@127.0.0.1:1/db", str(folder / "not-here"))
    assert alone["port_error"] == alone["login_error"]
    assert alone["port_error"]
    assert (alone["wrote"], alone["write_error"]) == (None, "there is no such folder here")
    assert checkup._read_probe(str(folder / "shared"), "probe", "sha") is not None
