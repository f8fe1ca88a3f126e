"""Artefacts on a real S3 server of our own: what is noticed, what is tried again, what stops a run?"""

from __future__ import annotations

import hashlib
import http.client
import multiprocessing
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec
import numpy as np
import pytest

from tests.cluster.servers import BUCKET, s3_environment, s3_server
from tests.postgres import free_port
from tests.runs import assert_same_results, deterministic, run, select, write_sweep
from workers.artifacts import ArtifactStore
from workers.embed import embedding_digest, run_embed
from workers.encoders.base import Input, make_encoder
from workers.errors import ArtifactError, StoreError
from workers.units import EmbedUnit

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)
LOCAL = ("--executor", "local", "--workers", "2")


@pytest.fixture(scope="module")
def access_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s3") / "log"


@pytest.fixture(scope="module")
def endpoint(access_log: Path) -> Iterator[str]:
    with s3_server(access_log) as url:
        yield url


@pytest.fixture
def aws(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's environment, as a node's is set."""
    _point_at(endpoint, monkeypatch)


def _point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_environment(endpoint).items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()  # a client keeps the endpoint that it was made with


@pytest.fixture
def folder_url(aws: None) -> str:
    """A folder of the bucket that no other test uses."""
    return f"s3://{BUCKET}/{uuid4().hex}"


def someone_else() -> Any:
    """A client of another process's kind: it shares no cache with the store's."""
    return fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)


def test_rows_come_back_read_only_with_url_and_checksum(folder_url: str) -> None:
    store = ArtifactStore(folder_url)
    assert not store.exists("e/0-4")
    url, sha256, n_bytes = store.write("e/0-4", ROWS, {"recipe": "x"})
    assert url == f"{folder_url}/e/0-4.npy"
    assert sha256 == hashlib.sha256(ROWS.tobytes()).hexdigest()
    assert someone_else().size(url) == n_bytes
    assert store.exists("e/0-4")
    rows = store.read("e/0-4", sha256)
    np.testing.assert_array_equal(rows, ROWS)
    assert not rows.flags.writeable
    store.check()


@pytest.mark.parametrize("kept", [0, 5, 130, -1])
def test_a_truncated_object_is_damaged(folder_url: str, kept: int) -> None:
    store = ArtifactStore(folder_url)
    url, sha256, _ = store.write("a", ROWS, {})
    someone_else().pipe_file(url, someone_else().cat_file(url)[:kept])
    with pytest.raises(ArtifactError, match=r"a\.npy: the artefact"):
        store.read("a", sha256)


def test_other_bytes_are_damaged(folder_url: str) -> None:
    store = ArtifactStore(folder_url)
    url, sha256, _ = store.write("a", ROWS, {})
    content = bytearray(someone_else().cat_file(url))
    content[-1] ^= 1
    someone_else().pipe_file(url, bytes(content))
    with pytest.raises(ArtifactError, match="the artefact's rows have sha256"):
        store.read("a", sha256)


@pytest.mark.parametrize("left", [".npy", ".json"])
def test_half_of_an_artefact_does_not_exist(folder_url: str, left: str) -> None:
    store = ArtifactStore(folder_url)
    url, sha256, _ = store.write("a", ROWS, {})
    assert store.exists("a")
    someone_else().rm_file(url.replace(".npy", ".json" if left == ".npy" else ".npy"))
    assert not store.exists("a")  # asked again, not remembered
    if left == ".json":
        with pytest.raises(ArtifactError, match="the artefact is missing"):
            store.read("a", sha256)


def _write_at_once(url: str, gate: Any, values: list[int]) -> None:
    def write(value: int) -> None:
        rows = np.full((2000, 64), value, dtype=np.float32)
        store = ArtifactStore(url)
        gate.wait(60)
        for _ in range(3):
            store.write("e/a", rows, {"value": value})

    with ThreadPoolExecutor(len(values)) as pool:
        list(pool.map(write, values))


@pytest.mark.parametrize("values", [[7] * 10, list(range(10))], ids=["same rows", "other rows each"])
def test_ten_writers_at_once_end_with_one_good_file(folder_url: str, values: list[int]) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(10)
    writers = [
        context.Process(target=_write_at_once, args=(folder_url, gate, part)) for part in (values[:5], values[5:])
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    found = someone_else().find(folder_url)
    assert sorted(path.rpartition("/")[2] for path in found) == ["a.json", "a.npy"]
    whole = {hashlib.sha256(np.full((2000, 64), value, dtype=np.float32).tobytes()).hexdigest() for value in values}
    good = [sha256 for sha256 in whole if _reads(folder_url, sha256)]
    assert len(good) == 1


def _reads(url: str, sha256: str) -> bool:
    try:
        ArtifactStore(url).read("e/a", sha256)
    except ArtifactError:
        return False
    return True


# -- a server that fails ----------------------------------------------------------------------------------------------


class _Flaky(ThreadingHTTPServer):
    """Stands before the S3 and lets the next few requests fail."""

    daemon_threads = True

    def __init__(self, upstream: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Relay)
        self.upstream = urlsplit(upstream).netloc
        self.how, self.left, self.failed = "", 0, 0

    def fail(self, how: str, times: int) -> None:
        self.how, self.left, self.failed = how, times, 0


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Flaky

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.left:
            self.server.left -= 1
            self.server.failed += 1
            self.close_connection = True
            if self.server.how == "cut":
                return
            if self.server.how == "mute":
                time.sleep(30)
                return
            self.send_response(int(self.server.how))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _relay

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[str]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("how", ["cut", "500", "503"])
def test_what_passes_is_tried_again(endpoint: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = _Flaky(endpoint)
    with _serving(flaky) as url:
        _point_at(url, monkeypatch)
        store = ArtifactStore(f"s3://{BUCKET}/{uuid4().hex}")
        flaky.fail(how, 2)
        _, sha256, _ = store.write("a", ROWS, {})
        assert flaky.failed == 2
        flaky.fail(how, 2)
        np.testing.assert_array_equal(store.read("a", sha256), ROWS)
        assert flaky.failed == 2
        flaky.fail(how, 2)
        assert store.exists("a")
        assert flaky.failed == 2


def test_a_server_that_comes_back_late_is_waited_for(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    _point_at(f"http://127.0.0.1:{port}", monkeypatch)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # so that botocore's own attempts, a few seconds long, do not hide ours
    stack = ExitStack()
    late = Timer(1.5, lambda: stack.enter_context(_serving(_Flaky(endpoint, port))))
    with stack:
        late.start()
        assert not ArtifactStore(f"s3://{BUCKET}/x").exists("a")
        late.join()


# -- a store that cannot be used ---------------------------------------------------------------------------------------


def _refused(store: ArtifactStore) -> set[str]:
    """What each operation says, which must be one and the same."""
    embedding = embedding_digest(make_encoder("hash-ngrams", {}).recipe(), "0" * 64)
    unit = EmbedUnit(key="u1:x", embedding=embedding, encoder="hash-ngrams", params={}, start=0, stop=1)
    inputs = [Input(text="a", image=None, image_digest=None, query="q")]
    said = set()
    for operation in (
        lambda: store.write("a", ROWS, {}),
        store.check,
        lambda: run_embed(unit, inputs, store),  # raised and not a failure of the unit
    ):
        with pytest.raises(StoreError) as caught:
            operation()
        said.add(str(caught.value))
    return said


def test_a_missing_bucket_is_named_and_not_made(aws: None) -> None:
    (said,) = _refused(ArtifactStore("s3://nobody-made-this/x"))
    assert said.startswith("the artefact store s3://nobody-made-this/x cannot be used: The specified bucket does not ")
    with pytest.raises(StoreError, match="bucket does not exist"):
        ArtifactStore("s3://nobody-made-this/x").read("a", "0")
    assert not someone_else().exists("nobody-made-this")


def test_missing_credentials_are_named(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _point_at(endpoint, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = ArtifactStore(f"s3://{BUCKET}/x")
    (said,) = _refused(store)
    assert "Unable to locate credentials. Check ROADTEST_ARTIFACTS" in said
    for operation in (lambda: store.read("a", "0"), lambda: store.exists("a")):
        with pytest.raises(StoreError, match="Unable to locate credentials"):
            operation()


def test_an_endpoint_where_nobody_listens_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _point_at(f"http://127.0.0.1:{free_port()}", monkeypatch)
    store = ArtifactStore(f"s3://{BUCKET}/x", patience=1.0)
    for operation in (lambda: store.read("a", "0"), lambda: store.exists("a"), lambda: store.write("a", ROWS, {})):
        with pytest.raises(StoreError, match=r"no answer within 1 s|Could not connect to the endpoint URL"):
            operation()


def test_a_server_that_says_nothing_is_given_up(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = _Flaky(endpoint)
    with _serving(flaky) as url:
        _point_at(url, monkeypatch)
        store = ArtifactStore(f"s3://{BUCKET}/x", patience=1.0)
        flaky.fail("mute", 1000)
        with pytest.raises(StoreError, match="no answer within 1 s"):
            store.read("a", "0")


@pytest.mark.parametrize(
    ("url", "reason"), [("nope://x/y", "Protocol not known: nope"), ("gs://bucket/x", "Please install gcsfs")]
)
def test_a_store_without_a_driver_is_refused(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=re.escape(f"the artefact store {url} cannot be used: {reason}")):
        ArtifactStore(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(StoreError) as caught:
        ArtifactStore("nope://me:hunter2@host/folder")
    assert "nope://***@host/folder" in str(caught.value)
    assert "hunter2" not in str(caught.value)


# -- whole runs --------------------------------------------------------------------------------------------------------

ROUTERS = ["zero-router", {"name": "knn@10", "use": "knn", "k": 10}]
#: Several slices.
QUERIES = [{"name": "toolbox", "queries": 2400}]


@pytest.fixture(scope="module")
def on_local_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """Results of four splits, undisturbed, artefacts in the sweep's folder."""
    folder = tmp_path_factory.mktemp("local")
    run(write_sweep(folder, benchmarks=QUERIES, routers=ROUTERS, seeds=4), *LOCAL)
    return deterministic(folder)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "no manifest"])
def test_an_object_damaged_between_two_runs_is_embedded_again(
    damage: str,
    endpoint: str,
    folder_url: str,
    on_local_disk: dict[str, list[tuple[Any, ...]]],
    tmp_path: Path,
) -> None:
    env = {**s3_environment(endpoint), "ROADTEST_ARTIFACTS": folder_url}
    run(write_sweep(tmp_path, benchmarks=QUERIES, routers=ROUTERS, seeds=2), *LOCAL, env=env)
    client = someone_else()
    slices = [path for path in client.find(folder_url) if path.endswith(".npy")]
    assert len(slices) == len(on_local_disk["artifact"]) > 1
    if damage == "no manifest":
        client.rm_file(slices[1].replace(".npy", ".json"))
    else:
        client.pipe_file(slices[1], client.cat_file(slices[1])[:5000])

    run(write_sweep(tmp_path, benchmarks=QUERIES, routers=ROUTERS, seeds=4), *LOCAL, env=env)

    assert_same_results(tmp_path, on_local_disk)
    lost = "SELECT u.kind FROM event e JOIN unit u ON u.id = e.unit_id WHERE e.kind = 'artifact_lost'"
    assert select(tmp_path, lost) == [("embed",)]
    assert not (tmp_path / ".roadtest" / "artifacts").exists()


@pytest.mark.slow
def test_a_worker_fetches_a_slice_once_however_many_shards_it_does(
    endpoint: str,
    access_log: Path,
    folder_url: str,
    on_local_disk: dict[str, list[tuple[Any, ...]]],
    tmp_path: Path,
) -> None:
    env = {**s3_environment(endpoint), "ROADTEST_ARTIFACTS": folder_url}
    sweep = write_sweep(tmp_path, benchmarks=QUERIES, routers=[*ROUTERS, "knn", "linear"], seeds=8)
    run(sweep, *LOCAL, env=env)
    folder = folder_url.partition("://")[2].partition("/")[2]
    fetched = re.findall(rf'"GET /{BUCKET}/{folder}/(?!probe)(\S+?)\.npy', access_log.read_text())
    assert len(fetched) == len(set(fetched)) == len(on_local_disk["artifact"])


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_run_without_its_bucket_stops_as_an_environment_error(executor: str, endpoint: str, tmp_path: Path) -> None:
    env = {**s3_environment(endpoint), "ROADTEST_ARTIFACTS": "s3://nobody-made-this/x"}
    sweep = write_sweep(tmp_path, routers=ROUTERS, seeds=2)
    said = run(sweep, "--executor", executor, "--workers", "1", env=env, expect=4)
    assert "the artefact store s3://nobody-made-this/x cannot be used" in said
    assert "Traceback" not in said
    assert select(tmp_path, "SELECT count(*) FROM unit WHERE state IN ('failed', 'quarantined', 'running')") == [(0,)]

    run(sweep, *LOCAL)  # mended: the same command goes on
    assert select(tmp_path, "SELECT count(*) FROM unit WHERE state <> 'done'") == [(0,)]
