"""Bad input: one paragraph that names the file, row or key and what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import open_store, schema
from tests.runs import command
from tests.tiny import write_tables

OUTCOMES, QUERIES = "tiny/outcomes.csv", "tiny/queries.csv"


def edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of one file: the first occurrence of `old`."""

    def change(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new, 1))

    return change


def nothing(folder: Path) -> None:
    """Leave the files as they are."""


def refused(ended: Any, *words: str) -> str:
    """Check the shape of a refusal; returns the message."""
    assert ended.code == 2, ended.err
    lines = ended.err.strip().splitlines()
    assert len(lines) == 1 or not any(line.startswith((" ", "Traceback")) for line in lines), ended.err
    message = " ".join(lines)
    for word in words:
        assert word in message, (word, message)
    return message


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


KNN = {"name": "knn@5", "use": "knn", "k": 5}
TINY = {"name": "tiny", "path": "tiny"}
CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], list[str]]] = {
    "missing column of outcomes": (
        edit(OUTCOMES, "cost", "price"), {}, [OUTCOMES, "no column 'cost'"],
    ),
    "missing column of queries": (
        edit(QUERIES, "query_id", "id"), {}, [QUERIES, "no column 'query_id'"],
    ),
    "missing embedded column": (
        nothing, {"benchmarks": [{**TINY, "embed": "questoin"}]}, [QUERIES, "'questoin'", "did you mean 'question'?"],
    ),
    "negative cost": (
        edit(OUTCOMES, "q001,large,1.0,0.5,0.02", "q001,large,1.0,0.5,-0.02"), {},
        [OUTCOMES, "row 4", "'q001'", "'large'", "-0.02"],
    ),
    "score above 1": (
        edit(OUTCOMES, "q001,large,1.0", "q001,large,1.5"), {}, [OUTCOMES, "row 4", "'q001'", "1.5", "[0, 1]"],
    ),
    "score below 0": (
        edit(OUTCOMES, "q001,large,1.0", "q001,large,-1.0"), {}, [OUTCOMES, "row 4", "-1.0", "[0, 1]"],
    ),
    "a score that is no number": (
        edit(OUTCOMES, "q001,large,1.0", "q001,large,good"), {}, [OUTCOMES, "row 4", "'good'"],
    ),
    "duplicate (query, model)": (
        edit(OUTCOMES, "q001,medium", "q001,large"), {}, [OUTCOMES, "row 4", "row 5", "'q001'", "'large'", "twice"],
    ),
    "duplicate query": (
        edit(QUERIES, "q001,", "q000,x,x,count\nq001,"), {}, [QUERIES, "'q000'", "twice"],
    ),
    "outcome of an unknown query": (
        edit(OUTCOMES, "q001,large", "q999,large"), {}, [OUTCOMES, "row 4", "'q999'"],
    ),
    "empty pool by models": (nothing, {"benchmarks": [{**TINY, "models": []}]}, ["'tiny'", "pool is empty"]),
    "empty pool by family": (nothing, {"benchmarks": [{**TINY, "family": "east"}]}, ["'east'", "north"]),
    "unknown task": (nothing, {"benchmarks": [{**TINY, "tasks": ["counts"]}]}, ["did you mean 'count'?"]),
    "too many queries": (nothing, {"benchmarks": [{**TINY, "queries": 61}]}, ["61", "60"]),
    "unknown router": (nothing, {"routers": ["knm"]}, ["unknown router 'knm'", "did you mean 'knn'?"]),
    "unknown parameter": (nothing, {"routers": [{**KNN, "kk": 1}]}, ["'knn@5'", "no parameter 'kk'"]),
    "unknown encoder": (nothing, {"encoders": ["minlm"]}, ["unknown encoder 'minlm'", "did you mean 'minilm'?"]),
    "unknown benchmark": (nothing, {"benchmarks": ["toolbx"]}, ["unknown benchmark 'toolbx'", "'toolbox'"]),
    "unknown path": (nothing, {"benchmarks": [{**TINY, "path": "tony"}]}, ["'tony'", "ROADTEST_SHARED"]),
    "unknown key": (nothing, {"seed": 3}, ["sweep.yaml", "'seed'", "did you mean 'seeds'?"]),
    "k above the training side": (nothing, {"routers": [{**KNN, "k": 500}]}, ["'tiny'", "'knn@5'", "500"]),
    "a random seed that no database holds": (nothing, {"root_seed": 2**63}, ["root_seed"]),
    "a tunable neither given nor tuned": (nothing, {"routers": [{"name": "knn", "tune": False}]}, ["k is not given"]),
    "no encoder": (nothing, {"encoders": []}, ["'knn@5'", "`encoders:`"]),
    "a reference that reads outcomes": (nothing, {"reference": "oracle"}, ["'oracle'", "test outcomes"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_sweep_that_cannot_be(cli: Any, tiny: Path, write_sweep: Callable[..., Path], verb: str, case: str) -> None:
    change, keys, words = CASES[case]
    change(tiny.parent)
    path = write_sweep(**keys)
    before = listing(tiny.parent)
    refused(cli(verb, path, *(["--executor", "local"] if verb == "run" else [])), *words)
    assert listing(tiny.parent) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: small\nrouters: [knn\nseeds: 2\n", ["sweep.yaml", "line 3"]),
        ("name: small\nrouters:\n\t- knn\n", ["sweep.yaml", "line 3"]),
        ("just words", ["sweep.yaml", "mapping"]),
        (None, ["sweep.yaml", "roadtest init"]),
    ],
)
def test_a_sweep_file_that_cannot_be_read(cli: Any, folder: Path, text: str | None, words: list[str]) -> None:
    if text is not None:
        (folder / "sweep.yaml").write_text(text)
    before = listing(folder)
    refused(cli("run", "sweep.yaml", "--executor", "local"), *words)
    assert listing(folder) == before


URLS = [
    ("nonsense", ["'nonsense'", "sqlite:///FILE"]),
    ("mysql://me@host/db", ["'mysql'", "postgresql"]),
    ("postgresql://me@host:port/db", ["postgresql+psycopg://USER@HOST/DATABASE"]),
    ("sqlite://", ["sqlite:///FILE"]),
    ("sqlite:///nowhere/at/all.db", ["nowhere/at", "does not exist", "--db"]),
    ("sqlite:///tiny", ["tiny", "--db"]),
    ("sqlite:///tiny/meta.json", ["meta.json", "not a SQLite database"]),
    ("postgresql+psycopg://me@127.0.0.1:1/db", ["127.0.0.1:1/db", "Check that the server runs"]),
]


@pytest.mark.parametrize(("url", "words"), URLS)
@pytest.mark.parametrize("verb", ["run", "status"])
def test_a_wrong_url(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], url: str, words: list[str], verb: str
) -> None:
    arguments = ["run", write_sweep(), "--executor", "local"] if verb == "run" else ["status"]
    if verb == "status" and url == "sqlite:///nowhere/at/all.db":
        words = ["nowhere/at/all.db", "roadtest run SWEEP"]
    before = listing(tiny.parent)
    refused(cli(*arguments, "--db", url), *words)
    assert listing(tiny.parent) == before


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:s3cret@127.0.0.1:1/db",
        "postgresql+psycopg://me@127.0.0.1:1/db?password=s3cret",
        "postgresql+psycopg://me:s3cret@127.0.0.1:port/db",
        "postgresql+psycopg:/me:s3cret@127.0.0.1/db",
    ],
)
@pytest.mark.parametrize("given", ["option", "environment"])
def test_a_password_is_never_shown(cli: Any, folder: Path, monkeypatch: Any, url: str, given: str) -> None:
    if given == "environment":
        monkeypatch.setenv("ROADTEST_DB", url)
    ended = cli("status", *(["--db", url] if given == "option" else []))
    message = refused(ended)
    assert "s3cret" not in ended.out + ended.err
    if given == "option" and ":port" not in url and ":/me" not in url:
        assert "PGPASSFILE" in message
        assert "ROADTEST_DB" in message


@pytest.mark.parametrize("verb", ["run", "plan", "status", "report", "sql", "retry", "db upgrade"])
def test_a_database_of_a_newer_schema(cli: Any, tiny: Path, write_sweep: Callable[..., Path], verb: str) -> None:
    open_store().close()
    with closing(sqlite3.connect("roadtest.db")) as connection:
        connection.execute(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    more = {"run": [write_sweep(), "--executor", "local"], "plan": [write_sweep()], "sql": ["SELECT 1"]}.get(verb, [])
    before = listing(tiny.parent)
    refused(cli(*verb.split(), *more), "roadtest.db", "'9999'", "newer version", "--db")
    assert {name for name in listing(tiny.parent) if not name.endswith(("-shm", "-wal"))} == {
        name for name in before if not name.endswith(("-shm", "-wal"))
    }


@pytest.mark.parametrize("verb", ["status", "report", "sql", "export", "retry", "invalidate", "compare", "db check"])
def test_verbs_that_read_make_no_database(cli: Any, folder: Path, verb: str) -> None:
    more = {"sql": ["SELECT 1"], "compare": ["a", "b"], "invalidate": ["--reason", "x"]}.get(verb, [])
    refused(cli(*verb.split(), *more), "roadtest.db", "roadtest run SWEEP")
    assert listing(folder) == set()


def test_names_that_the_database_does_not_hold(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> None:
    open_store().close()
    refused(cli("status"), "no sweep yet")
    assert cli("run", write_sweep(), "--executor", "local", "--no-report").code == 0
    refused(cli("status", "--sweep", "smal"), "'smal'", "did you mean 'small'?")
    refused(cli("compare", "knn@5", "nobody"), "nobody")
    refused(cli("retry", "--router", "nobody"), "no failed unit that fits")
    refused(cli("invalidate", "u1:nothing", "--reason", "x"), "no done unit that fits")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nmae", "x"], ["--n"]),
        (["--name", "../x"], ["../x", "letters"]),
        (["--name", "toolbox"], ["'toolbox'", "embedded"]),
        (["--name", "x", "--task", "counts"], ["did you mean 'count'?"]),
        (["--name", "x", "--models", "tiny"], ["'tiny'"]),
        (["--name", "x", "--family", "east"], ["'east'"]),
        (["--name", "x", "--embed", "none"], ["'none'"]),
    ],
)
def test_an_import_that_cannot_be(cli: Any, tiny: Path, arguments: list[str], words: list[str]) -> None:
    before = listing(tiny.parent)
    refused(cli("benchmarks", "import", "tiny", *arguments), *words)
    assert listing(tiny.parent) == before


def test_hostile_names_of_an_import_are_shown_as_text(cli: Any, folder: Path) -> None:
    """No escape sequence reaches the terminal and no markup is followed; for pages see test_reports.py."""
    name = "<script>alert(1)</script>[red]\x1b[2J"
    (folder / "MMR_Bench.csv").write_text(
        f"dataset_idx,question,{name}_correct,{name}_cost,b_correct,b_cost,{name}c_correct\n"
        + "".join(f"MMStar_{i},{name} {i},{i % 2},1,{i % 3 % 2},2,1\n" for i in range(8))
    )
    ended = cli("benchmarks", "import", "MMR_Bench.csv", "--name", "hostile")
    assert ended.code == 0, ended.err
    shown = "<script>alert(1)</script>[red]\\x1b[2J"
    assert f"left out, 1 x a model without a column of costs: {shown}c" in ended.out
    described = cli("benchmarks", "describe", "hostile")
    assert shown in "".join(described.out.split())
    refusal = cli("benchmarks", "import", "MMR_Bench.csv", "--name", "other", "--embed", name)
    assert shown in refused(refusal, "no field", "to embed")
    assert "\x1b" not in ended.out + described.out + refusal.err


def test_an_import_is_not_replaced_unasked_nor_lost_by_a_failing_one(cli: Any, tiny: Path) -> None:
    assert cli("benchmarks", "import", "tiny", "--name", "mine").code == 0
    kept = (tiny.parent / ".roadtest/benchmarks/mine/queries.parquet").read_bytes()
    refused(cli("benchmarks", "import", "tiny", "--name", "mine"), "'mine'", "--force")
    edit(OUTCOMES, "q001,large,1.0", "q001,large,1.5")(tiny.parent)
    refused(cli("benchmarks", "import", "tiny", "--name", "mine", "--force"), "1.5")
    assert (tiny.parent / ".roadtest/benchmarks/mine/queries.parquet").read_bytes() == kept


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["run"], ["run", "a.yaml", "--executor", "spark"], ["status", "-x"]]
)
def test_wrong_usage(cli: Any, folder: Path, arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err


def test_address_without_ray(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> None:
    refused(cli("run", write_sweep(), "--executor", "local", "--address", "auto"), "--address", "--executor local")


def mounted(where: Path, *options: str) -> Iterator[Path]:
    """A file system of our own, or a skip where mounting is not allowed."""
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(where)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@pytest.fixture
def read_only(folder: Path) -> Iterator[Path]:
    """A folder that even root cannot write to."""
    yield from mounted(folder / "frozen", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs")


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    yield from mounted(folder / "disk", "-t", "tmpfs", "-o", "size=3m", "tmpfs")


def test_a_read_only_folder(
    cli: Any, tiny: Path, read_only: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = write_sweep()
    before = listing(tiny.parent)
    refused(
        cli("run", sweep, "--executor", "local", "--db", f"sqlite:///{read_only}/r.db"),
        "frozen",
        "writ",
        "ROADTEST_HOME",
    )
    refused(cli("init", read_only / "s.yaml"), "s.yaml", "writable")
    refused(cli("benchmarks", "import", "tiny", "--name", "x", "--db", f"sqlite:///{read_only}/r.db"), "frozen")
    monkeypatch.setenv("ROADTEST_HOME", str(read_only / "home"))
    refused(cli("run", sweep, "--executor", "local"), "frozen/home", "ROADTEST_HOME")
    monkeypatch.setenv("ROADTEST_HOME", str(tiny.parent / "home"))
    refused(
        cli("run", sweep, "--executor", "local", "--db", f"sqlite:///{read_only}/r.db"), "frozen/r.db", "not writable"
    )
    assert listing(tiny.parent) == before


def test_a_home_below_a_file(
    cli: Any, tiny: Path, write_sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = write_sweep()
    before = listing(tiny.parent)
    monkeypatch.setenv("ROADTEST_HOME", str(tiny / "meta.json" / "home"))
    refused(cli("run", sweep, "--executor", "local"), "meta.json/home", "ROADTEST_HOME")
    assert listing(tiny.parent) == before


def run_alone(sweep: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Run a sweep in a process of its own, because a run that breaks off may end its process at once."""
    arguments = command("run", sweep, "--executor", "local", "--workers", "1", "--no-report", "--db", url)
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("what", ["database", "home"])
def test_a_full_disk_in_mid_run_is_resumable(
    folder: Path,
    small_disk: Path,
    write_sweep: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    write_tables(folder / "tiny", n=600)
    database, home = (small_disk, folder) if what == "database" else (folder, small_disk)
    monkeypatch.setenv("ROADTEST_HOME", str(home / "home"))
    url = f"sqlite:///{database}/r.db"
    filling = what == "database"  # 80 kB of bootstrap areas for each of 40 units
    sweep = write_sweep(seeds=20, routers=["zero-router", KNN], protocol={"bootstrap": 10_000 if filling else 0})
    ballast = small_disk / "ballast"
    if what == "home":
        ballast.write_bytes(b"0" * 2_600_000)
    ended = run_alone(sweep, url)
    assert ended.returncode == 4, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "disk" in ended.stderr or "space" in ended.stderr, ended.stderr
    if what == "home":
        ballast.unlink()
    else:
        subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    ended = run_alone(sweep, url)
    assert ended.returncode == 0, ended.stderr
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        states = [state for (state,) in connection.execute("SELECT DISTINCT state FROM unit")]
        twice = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM attempt WHERE outcome = 'done' GROUP BY unit_id HAVING count(*) > 1)"
        ).fetchone()
    assert states == ["done"]
    assert twice == (0,)
