from __future__ import annotations

import errno
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tenacity

from orchestrator.fetching import SuiteError, find_suite, suite_of, suites
from orchestrator.fetching import downloading as downloading_module
from orchestrator.fetching import fetch as fetch_module
from orchestrator.fetching.downloading import Checksum, RemoteFile, download, local_path
from orchestrator.fetching.fetch import Fetched, fetch
from orchestrator.fetching.manifest import Manifest
from orchestrator.fetching.suites import Suite
from orchestrator.fetching.upstream import hub_client, list_files
from orchestrator.fetching.web import Client, FetchError, OfflineError, StoppedError
from tests.upstream import Upstream, git_id, serve, sha256

COMMIT = "a" * 40
BODY = bytes(range(256)) * 40


class Quiet:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.files: list[RemoteFile] = []
        self.bytes: dict[str, int] = {}
        self.done: list[str] = []

    def started(self, files: list[RemoteFile]) -> None:
        self.files += files

    def at(self, file: RemoteFile, n_bytes: int) -> None:
        self.bytes[file.path] = n_bytes

    def ended(self, file: RemoteFile) -> None:
        self.done.append(file.path)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(downloading_module, "CHUNK", 500)
    with serve(Upstream()) as found:
        for variable in ("HF_ENDPOINT", "ROADTEST_GITHUB_ENDPOINT", "ROADTEST_GCS_ENDPOINT"):
            monkeypatch.setenv(variable, found.url)
        monkeypatch.setattr("orchestrator.fetching.web.WAIT", tenacity.wait_none())
        yield found


def client(**options: object) -> Client:
    return replace(hub_client(), wait=tenacity.wait_none(), **options)


def one(upstream: Upstream, **options: object) -> RemoteFile:
    upstream.files["/f"] = BODY
    return RemoteFile(path="f", url=f"{upstream.url}/f", **options)  # type: ignore[arg-type]


def bring(remote: RemoteFile, path: Path, **options: object) -> tuple[int, str]:
    return download(client(**options), remote, path, lambda _: None)


def suite(**entry: object) -> Suite:
    base = {"title": "t", "licence": "l", "size": "s", "format": "tables", "note": "n", "name": "mine"}
    return Suite.model_validate({**base, **entry})


def hub_suite(**entry: object) -> Suite:
    return suite(**{"hub": {"repo": "who/what", "revision": COMMIT}, "take": ["*.csv"], **entry})


# One file ------------------------------------------------------------------------------------------------------------


def test_a_file_arrives_whole(upstream: Upstream, tmp_path: Path) -> None:
    seen: list[int] = []
    remote = one(upstream, size=len(BODY), checksum=Checksum(kind="sha256", value=sha256(BODY)))
    assert download(client(), remote, tmp_path / "deep" / "f", seen.append) == (len(BODY), sha256(BODY))
    assert (tmp_path / "deep" / "f").read_bytes() == BODY
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f"]
    assert seen[0] == 0 and seen[-1] == len(BODY)
    assert upstream.asked[0].headers["Accept-Encoding"] == "identity"


def test_a_cut_connection_goes_on_where_it_ended(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults["/f"] = [("cut", 3000), ("cut", 2000)]
    assert bring(one(upstream), tmp_path / "f")[1] == sha256(BODY)
    ranges = [asked.headers.get("Range") for asked in upstream.asked]
    assert ranges == [None, "bytes=3000-", "bytes=5000-"]
    assert upstream.asked[1].headers["If-Range"] == f'"{hashlib.md5(BODY).hexdigest()}"'


def test_many_cuts_are_fine_as_long_as_bytes_come(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults["/f"] = [("cut", 500)] * 15
    assert bring(one(upstream), tmp_path / "f")[1] == sha256(BODY)
    assert len(upstream.asked) == 16


def test_a_server_that_ignores_ranges_begins_anew(upstream: Upstream, tmp_path: Path) -> None:
    upstream.ranges = False
    upstream.faults["/f"] = [("cut", 3000)]
    assert bring(one(upstream), tmp_path / "f")[1] == sha256(BODY)
    assert upstream.asked[1].headers["Range"] == "bytes=3000-"


def test_cuts_without_ranges_end(upstream: Upstream, tmp_path: Path) -> None:
    upstream.ranges = False
    upstream.faults["/f"] = [("cut", 3000)] * 30
    with pytest.raises(OfflineError, match="the connection ended early"):
        bring(one(upstream), tmp_path / "f")
    assert len(upstream.asked) == 7  # the first brought something new, the six others nothing
    assert (tmp_path / "f.part").stat().st_size == 3000


def test_a_changed_version_begins_anew(upstream: Upstream, tmp_path: Path) -> None:
    remote = one(upstream)
    (tmp_path / "f.part").write_bytes(b"old" * 100)
    (tmp_path / "f.part.etag").write_text(f'{remote.url}\n"of-the-old-version"\n')
    assert bring(remote, tmp_path / "f")[1] == sha256(BODY)
    assert upstream.asked[0].headers["If-Range"] == '"of-the-old-version"'
    assert len(upstream.asked) == 1


@pytest.mark.parametrize("tag", ["", 'W/"weak"', '"of-another-address"'])
def test_a_part_of_nobody_knows_what_is_not_used(upstream: Upstream, tmp_path: Path, tag: str) -> None:
    remote = one(upstream)
    (tmp_path / "f.part").write_bytes(b"old" * 100)
    where = f"{remote.url}x" if "another" in tag else remote.url
    (tmp_path / "f.part.etag").write_text(f"{where}\n{tag}\n")
    assert bring(remote, tmp_path / "f")[1] == sha256(BODY)
    assert "Range" not in upstream.asked[0].headers


def test_a_part_without_etag_goes_on_where_a_checksum_tells(upstream: Upstream, tmp_path: Path) -> None:
    remote = one(upstream, size=len(BODY), checksum=Checksum(kind="git", value=git_id(BODY)))
    (tmp_path / "f.part").write_bytes(BODY[:700])
    assert bring(remote, tmp_path / "f")[1] == sha256(BODY)
    assert upstream.asked[0].headers["Range"] == "bytes=700-"
    (tmp_path / "g.part").write_bytes(b"?" * 700)  # of another version: found out at the end, and fetched anew
    assert bring(remote, tmp_path / "g")[1] == sha256(BODY)
    (tmp_path / "h.part").write_bytes(BODY)
    upstream.asked.clear()
    assert bring(remote, tmp_path / "h")[1] == sha256(BODY)
    assert not upstream.asked  # whole and right already


def test_a_part_that_is_too_long_is_not_used(upstream: Upstream, tmp_path: Path) -> None:
    remote = one(upstream)
    (tmp_path / "f.part").write_bytes(BODY + b"more")
    (tmp_path / "f.part.etag").write_text(f'{remote.url}\n"{hashlib.md5(BODY).hexdigest()}"\n')
    assert bring(remote, tmp_path / "f")[1] == sha256(BODY)
    assert [asked.headers.get("Range") for asked in upstream.asked] == [f"bytes={len(BODY) + 4}-", None]


def test_errors_of_the_moment_are_tried_again(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults["/f"] = [503, 429, 500, 504]
    assert bring(one(upstream), tmp_path / "f")[1] == sha256(BODY)
    assert len(upstream.asked) == 5


def test_a_server_may_ask_for_a_wait(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(tenacity, "sleep_using_event", lambda _: waits.append)
    upstream.faults["/f"] = [("refused", 429, {"Retry-After": "7"}), ("refused", 503, {"Retry-After": "99999"}), 503]
    bring(one(upstream), tmp_path / "f")
    assert waits == [7, 120, 0]


def test_errors_that_stay_end_with_the_address(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults["/f"] = [502] * 9
    with pytest.raises(OfflineError, match=r"/f: the server answers 502 Bad Gateway \(6 attempts\)"):
        bring(one(upstream), tmp_path / "f")
    with pytest.raises(FetchError, match="/gone: the server answers 404 Not Found"):
        bring(RemoteFile(path="gone", url=f"{upstream.url}/gone"), tmp_path / "gone")
    assert [asked.path for asked in upstream.asked].count("/gone") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["sha256", "md5", "git"])
def test_a_wrong_checksum_is_not_kept(upstream: Upstream, tmp_path: Path, kind: str) -> None:
    remote = one(upstream, checksum=Checksum(kind=kind, value="0" * 40))
    with pytest.raises(FetchError, match=f"{kind} checksum .* instead of 0000.* not kept"):
        bring(remote, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
    assert len(upstream.asked) == 1


def test_another_size_than_announced_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="10240 bytes come, upstream announced 99"):
        bring(one(upstream, size=99), tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_nobody_there(tmp_path: Path, upstream: Upstream) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/f?token=secret"
    with pytest.raises(OfflineError, match="connection refused") as caught:
        bring(RemoteFile(path="f", url=url), tmp_path / "f")
    assert str(caught.value).count("secret") == 1  # the address asked for, nothing of the library's


def test_stopping_keeps_the_part(upstream: Upstream, tmp_path: Path) -> None:
    stopping = client(stopped=threading.Event())
    with pytest.raises(StoppedError):
        download(stopping, one(upstream), tmp_path / "f", lambda n: stopping.stopped.set() if n else None)
    assert (tmp_path / "f.part").stat().st_size > 0
    with pytest.raises(StoppedError):
        stopping.json(f"{upstream.url}/f")


# The token -----------------------------------------------------------------------------------------------------------


def test_the_token_is_for_the_hub_alone(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret\n")
    with serve(Upstream(files={"/blob": BODY})) as elsewhere:
        remote = one(upstream)
        upstream.faults["/f"] = [("to", "/moved"), ("to", f"{elsewhere.url}/blob?Signature=s")]
        upstream.files["/moved"] = b"moved"
        assert bring(remote, tmp_path / "f")[1] == sha256(b"moved")
        assert bring(remote, tmp_path / "f")[1] == sha256(BODY)
        assert [asked.headers.get("Authorization") for asked in upstream.asked] == ["Bearer hf_secret"] * 3
        assert [asked.headers.get("Authorization") for asked in elsewhere.asked] == [None]
        # Neither to another host at once, nor to a host whose name merely begins like the hub's.
        bring(RemoteFile(path="b", url=f"{elsewhere.url}/blob"), tmp_path / "b")
        assert "Authorization" not in elsewhere.asked[-1].headers
        assert "hf_secret" not in repr(client())


def test_netrc_is_not_read(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    bring(one(upstream), tmp_path / "f")
    assert "Authorization" not in upstream.asked[0].headers


def test_a_token_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_one\nX-Other: two")
    with pytest.raises(FetchError, match="HF_TOKEN has characters") as caught:
        hub_client()
    assert "hf_one" not in str(caught.value)


def test_redirections_end(upstream: Upstream, tmp_path: Path) -> None:
    upstream.faults["/f"] = [("to", "/f")] * 20
    with pytest.raises(FetchError, match="in circles"):
        bring(one(upstream), tmp_path / "f")
    upstream.faults["/f"] = [("to", "file:///etc/passwd")]
    with pytest.raises(FetchError, match="redirected to file:///etc/passwd"):
        bring(one(upstream), tmp_path / "f")


def test_endpoints_are_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("ftp://x", "https://", "http://me:pass@host"):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        with pytest.raises(FetchError, match="HF_ENDPOINT is no http address") as caught:
            hub_client()
        assert "pass" not in str(caught.value)


# Listings ------------------------------------------------------------------------------------------------------------


def test_paths_stay_below_the_folder(tmp_path: Path) -> None:
    assert local_path(tmp_path, "mmlu:subject=a,model=o_b/x.json") == tmp_path / "mmlu:subject=a,model=o_b/x.json"
    (tmp_path / "out").symlink_to("/tmp")
    for path in (
        *("", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\..\\b", "C:\\x", "C:/x", "a\0b", "a\nb", "a/"),
        *("fetch.json", "x.part", "x.part.etag", "out/x"),
    ):
        with pytest.raises(FetchError, match="no path that is written below"):
            local_path(tmp_path, path)


def test_a_listing_with_traversal_writes_nothing(upstream: Upstream, tmp_path: Path) -> None:
    upstream.hub("who/what", COMMIT, {"fine.csv": b"1", "../../evil.csv": b"2"})
    folder = tmp_path / "deep" / "suite"
    with pytest.raises(FetchError, match=r"'\.\./\.\./evil\.csv', which is no path"):
        fetch(client(), hub_suite(take=["**.csv"]), folder, listener=Quiet())
    assert not upstream.bodies()
    assert not (tmp_path / "evil.csv").exists()


def test_the_hub_in_pages(upstream: Upstream) -> None:
    files = {f"data/{i}.csv": bytes([i]) for i in range(7)} | {"README.md": b"card", "data/deep/x.csv": b"x"}
    upstream.hub("who/what", COMMIT, files, branch="main", page=2)
    found = list_files(client(), hub_suite(hub={"repo": "who/what", "revision": "main"}, take=["data/*.csv", "no"]))
    assert [file.path for file in found.files] == [f"data/{i}.csv" for i in range(7)]
    assert found.revisions == {"who/what": COMMIT} and found.missing == ["no"]
    assert found.files[3].checksum == Checksum(kind="sha256", value=sha256(bytes([3])))
    assert not any(asked.path == "/elsewhere" for asked in upstream.asked)
    readme = list_files(client(), hub_suite(take=["README.md"])).files[0]
    assert readme.checksum == Checksum(kind="git", value=git_id(b"card"))


def test_pinned_checksums_are_of_the_pinned_revision(upstream: Upstream, tmp_path: Path) -> None:
    pinned = hub_suite(sha256={"a.csv": "0" * 64})
    upstream.hub("who/what", COMMIT, {"a.csv": b"a"})
    upstream.hub("who/what", "b" * 40, {"a.csv": b"b"})
    with pytest.raises(FetchError, match="sha256 checksum"):
        fetch(client(), pinned, tmp_path, listener=Quiet())
    fetch(client(), pinned, tmp_path, listener=Quiet(), revision="b" * 40)
    assert (tmp_path / "a.csv").read_bytes() == b"b"


LEADERBOARD = {
    "org__m/samples_leaderboard_bbh_2024-06-16T22-11-25.600579.json": b"old",
    "org__m/samples_leaderboard_bbh_2025-01-01T00-00-00.000001.jsonl": b"new",
    "org__m/samples_leaderboard_ifeval_2024-06-16T22-11-25.600579.json": b"ifeval",
    "org__m/results_2024-06-16T22-11-25.600579.json": b"results of ifeval",
    "org__m/results_2025-01-01T00-00-00.000001.json": b"results of bbh",
    "org__m/results_2023-01-01T00-00-00.000001.json": b"results of nothing",
    "README.md": b"card",
}


def test_details_of_the_open_llm_leaderboard(upstream: Upstream, tmp_path: Path) -> None:
    board = find_suite("open-llm-leaderboard")
    upstream.hub("open-llm-leaderboard/org__m-details", COMMIT, LEADERBOARD, branch="main")
    fetch(client(), board, tmp_path, listener=Quiet(), models=["org/m"])
    here = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*_20*")}
    assert here == {name for name, content in LEADERBOARD.items() if content not in (b"old", b"card")} - {
        "org__m/results_2023-01-01T00-00-00.000001.json"
    }
    with pytest.raises(SuiteError, match="name the models to take"):
        fetch(client(), board, tmp_path, listener=Quiet())
    with pytest.raises(SuiteError, match="no such dataset or such a model"):
        fetch(client(), board, tmp_path, listener=Quiet(), models=["org/other"])
    for wrong in ("../../x", "org/..", "a/b/c", "a?b", ""):
        with pytest.raises(SuiteError, match="no name of a model"):
            fetch(client(), board, tmp_path, listener=Quiet(), models=[wrong])


@pytest.mark.parametrize("status", [401, 403])
def test_gated_datasets_say_what_to_do(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    repo = "open-llm-leaderboard/org__m-details"
    upstream.hub(repo, COMMIT, LEADERBOARD, branch="main")
    gated = ("refused", status, {"X-Error-Code": "GatedRepo"})
    upstream.faults = {f"/datasets/{repo}/resolve/{COMMIT}/{name}": [gated] * 2 for name in LEADERBOARD}
    board = find_suite("open-llm-leaderboard")
    page = f"accept its conditions at {upstream.url}/datasets/{repo}, make a token at"
    with pytest.raises(FetchError, match=f"HF_TOKEN is not set: {page}"):
        fetch(client(), board, tmp_path, listener=Quiet(), models=["org/m"])
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(FetchError, match=f"HF_TOKEN was sent, but may not read it: {page}") as caught:
        fetch(client(), board, tmp_path, listener=Quiet(), models=["org/m"])
    assert "hf_secret" not in str(caught.value) + (tmp_path / "fetch.json").read_text()


def alpaca(*models: str) -> dict[str, bytes]:
    judge = "weighted_alpaca_eval_gpt4_turbo"
    doubled = f"results/vicuna-7b-v1.5/{judge}/{judge}/annotations.json"
    files = {doubled: b"difficulties", "results/only_outputs/model_outputs.json": b"[]", "README.md": b""}
    for model in models:
        files[f"results/{model}/model_outputs.json"] = f"outputs of {model}".encode()
        files[f"results/{model}/{judge}/annotations.json"] = f"annotations of {model}".encode()
        files[f"results/{model}/alpaca_eval_gpt4/annotations.json"] = b"another judge"
    return files


def test_alpaca_eval_whole_models_or_some(upstream: Upstream, tmp_path: Path) -> None:
    board = find_suite("alpaca-eval")
    assert board.github is not None
    upstream.github(board.github.repo, board.github.revision, alpaca("gpt4", "qwen"))
    fetched = fetch(client(), board, tmp_path / "all", listener=Quiet())
    assert (fetched.downloaded, len(fetched.missing)) == (5, 2)
    assert not (tmp_path / "all" / "results" / "only_outputs").exists()
    fetch(client(), board, tmp_path / "some", listener=Quiet(), models=["qwen"])
    assert sorted(path.name for path in (tmp_path / "some" / "results").iterdir()) == ["qwen", "vicuna-7b-v1.5"]
    with pytest.raises(SuiteError, match="'qwem': suite 'alpaca-eval' does not have it; did you mean 'qwen'"):
        fetch(client(), board, tmp_path / "some", listener=Quiet(), models=["qwem"])
    with pytest.raises(SuiteError, match="no files per model"):
        fetch(client(), find_suite("routerdc"), tmp_path / "dc", listener=Quiet(), models=["qwen"])


def helm(root: str, *, release: bool) -> dict[str, bytes]:
    runs = {
        "gsm:model=openai_gpt-4": "v1.0.0",
        "gsm:model=own_small": "v1.1.0",
        "mmlu:a=b,model=own_small,c=d": "v1.1.0",
    }
    output = f"{root}/benchmark_output"
    objects = {f"{output}/runs/v1.0.0/gsm:model=own_small/run_spec.json": b"superseded"} if release else {}
    media = [
        {"content_type": "text/plain", "text": "what?"},
        {"content_type": "image/png", "location": "benchmark_output/scenarios/s/images/a b.png"},
        {"content_type": "image/png", "location": "/home/x/benchmark_output/scenarios/s/images/gone.png"},
        {"content_type": "image/png", "location": "https://elsewhere/benchmark_output/x.png"},
    ]
    instances = [{"id": "id0", "input": {"text": "", "multimedia_content": {"media_objects": media}}}]
    for run, within in runs.items():
        for file in ("run_spec", "display_requests", "display_predictions", "per_instance_stats", "scenario_state"):
            objects[f"{output}/runs/{within}/{run}/{file}.json"] = f"{file} of {run}".encode()
        objects[f"{output}/runs/{within}/{run}/instances.json"] = json.dumps(instances).encode()
    if release:
        objects[f"{output}/releases/v9/runs_to_run_suites.json"] = json.dumps(runs).encode()
        objects[f"{output}/releases/v9/schema.json"] = b"{}"
    return objects


def test_helm_takes_the_runs_of_a_release(upstream: Upstream, tmp_path: Path) -> None:
    lite = find_suite("helm-lite")
    upstream.gcs("crfm-helm-public", helm("lite", release=True))
    upstream.listings["/crfm-helm-public/lite/benchmark_output/releases/v9/runs_to_run_suites.json"] = json.loads(
        helm("lite", release=True)["lite/benchmark_output/releases/v9/runs_to_run_suites.json"]
    )
    fetched = fetch(client(), lite, tmp_path, listener=Quiet(), models=["own/small"], revision="v9")
    runs = tmp_path / "benchmark_output" / "runs"
    assert fetched.downloaded == 2 * 5 + 1
    assert sorted(path.name for path in runs.iterdir()) == ["v1.1.0"]
    assert not list(tmp_path.rglob("scenario_state.json"))
    assert (tmp_path / "benchmark_output" / "releases" / "v9" / "schema.json").is_file()
    fetched = fetch(client(), lite, tmp_path, listener=Quiet(), revision="v9")
    assert (fetched.downloaded, fetched.here) == (5, 11)
    assert not (runs / "v1.0.0" / "gsm:model=own_small").exists()
    with pytest.raises(SuiteError, match=r"no such release: .*releases/v8/"):
        fetch(client(), lite, tmp_path, listener=Quiet(), revision="v8")
    with pytest.raises(SuiteError, match="no release of HELM"):
        fetch(client(), lite, tmp_path, listener=Quiet(), revision="../v8")


def test_vhelm_takes_the_pictures_that_questions_name(upstream: Upstream, tmp_path: Path) -> None:
    objects = helm("vhelm", release=False) | {"vhelm/benchmark_output/scenarios/s/images/a b.png": b"picture"}
    upstream.gcs("crfm-helm-public", objects)
    vhelm = find_suite("vhelm")
    listener = Quiet()
    fetched = fetch(client(), vhelm, tmp_path, listener=listener, models=["openai/gpt-4"], revision="v1.0.0")
    assert (tmp_path / "benchmark_output/scenarios/s/images/a b.png").read_bytes() == b"picture"
    assert fetched.absent == [
        "benchmark_output/runs/v1.0.0/schema.json",
        "benchmark_output/scenarios/s/images/gone.png",
    ]
    assert fetched.downloaded == 6 == len(listener.done)
    with pytest.raises(SuiteError, match=r"no runs of 'v7'"):
        fetch(client(), vhelm, tmp_path, listener=Quiet(), revision="v7")


@pytest.mark.parametrize("answer", [b"<html>log in</html>", [], {"tree": 1}, {"tree": [{"path": 1}]}, b"[" * 100_000])
def test_listings_that_are_none(upstream: Upstream, tmp_path: Path, answer: object) -> None:
    routerdc = find_suite("routerdc")
    assert routerdc.github is not None
    upstream.listings[f"/repos/shuhao02/RouterDC/git/trees/{routerdc.github.revision}"] = answer
    with pytest.raises(FetchError, match=r"no JSON|not as this version of roadtest knows it"):
        fetch(client(), routerdc, tmp_path, listener=Quiet())


def test_a_limit_of_requests_is_said(upstream: Upstream, tmp_path: Path) -> None:
    routerdc = find_suite("routerdc")
    assert routerdc.github is not None
    path = f"/repos/shuhao02/RouterDC/git/trees/{routerdc.github.revision}"
    upstream.faults[path] = [("refused", 403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700000000"})]
    with pytest.raises(FetchError, match=r"too many requests from this address until \d\d:\d\d"):
        fetch(client(), routerdc, tmp_path, listener=Quiet())


# A suite -------------------------------------------------------------------------------------------------------------


def test_a_second_run_asks_for_no_file(upstream: Upstream, tmp_path: Path) -> None:
    upstream.hub("who/what", COMMIT, {f"{i}.csv": bytes([i]) * 50 for i in range(9)})
    first = fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert (first.downloaded, first.n_bytes, first.here) == (9, 450, 0)
    upstream.asked.clear()
    second = fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert (second.downloaded, second.here) == (0, 9)
    assert not upstream.bodies()
    # What was changed or deleted here comes again, and nothing else.
    (tmp_path / "3.csv").write_bytes(b"X" * 50)
    (tmp_path / "4.csv").unlink()
    third = fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert sorted(asked.path[-5:] for asked in upstream.bodies()) == ["3.csv", "4.csv"]
    assert (third.downloaded, third.here) == (2, 7)
    assert (tmp_path / "3.csv").read_bytes() == b"\3" * 50


def test_the_manifest_says_what_is_here(upstream: Upstream, tmp_path: Path) -> None:
    upstream.hub("who/what", COMMIT, {"a.csv": b"aa"})
    fetch(client(), hub_suite(licence="CC-BY"), tmp_path, listener=Quiet())
    manifest = json.loads((tmp_path / "fetch.json").read_text())
    assert manifest["licence"] == "CC-BY" and manifest["complete"] is True
    assert manifest["revisions"] == {"who/what": COMMIT}
    assert manifest["files"] == {
        "a.csv": {
            "url": f"{upstream.url}/datasets/who/what/resolve/{COMMIT}/a.csv",
            "size": 2,
            "sha256": sha256(b"aa"),
            "checksum": f"sha256:{sha256(b'aa')}",
        }
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fetch.lock", "a.csv", "fetch.json"]


def test_files_put_by_hand_count(upstream: Upstream, tmp_path: Path) -> None:
    upstream.hub("who/what", COMMIT, {"a.csv": b"aa", "b.csv": b"bb"})
    (tmp_path / "a.csv").write_bytes(b"aa")
    (tmp_path / "fetch.json").write_text("{broken")
    fetched = fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert (fetched.downloaded, fetched.here) == (1, 1)


def test_without_a_network_what_is_whole_is_whole(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.hub("who/what", COMMIT, {"a.csv": b"aa"})
    fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    upstream.asked.clear()
    fetched = fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert fetched == Fetched(here=1, offline="HF_HUB_OFFLINE is set, so the hub is not asked.")
    assert not upstream.asked
    with pytest.raises(FetchError, match=r"HF_HUB_OFFLINE is set.*By hand: put \*\.csv of https://huggingface"):
        fetch(client(), hub_suite(), tmp_path, listener=Quiet(), revision="b" * 40)
    (tmp_path / "a.csv").write_bytes(b"ab")
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE is set"):
        fetch(client(), hub_suite(), tmp_path, listener=Quiet())


def test_an_error_keeps_what_is_here(upstream: Upstream, tmp_path: Path) -> None:
    upstream.hub("who/what", COMMIT, {"a.csv": b"a", "b.csv": b"b" * 1000, "c.csv": b"c"})
    path = f"/datasets/who/what/resolve/{COMMIT}/b.csv"
    upstream.faults[path] = [("cut", 500), *[500] * 9]
    with pytest.raises(FetchError, match=r"b\.csv: the server answers 500.*By hand"):
        fetch(client(), hub_suite(), tmp_path, listener=Quiet(), workers=1)
    assert (tmp_path / "a.csv").is_file() and not (tmp_path / "b.csv").exists()
    assert Manifest.read(tmp_path).complete is False
    upstream.faults.clear()
    upstream.asked.clear()
    fetched = fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert (fetched.downloaded, fetched.here) == (2, 1)
    assert [asked.headers["Range"] for asked in upstream.bodies() if asked.path == path] == ["bytes=500-"]


def test_a_full_disk_is_said_and_resumable(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.hub("who/what", COMMIT, {"a.csv": BODY})
    monkeypatch.setattr(fetch_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(FetchError, match=r"0\.0 GB are to come and .* has room for 0\.0 GB"):
        fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert not upstream.bodies()
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", upstream.url)
    monkeypatch.setattr(downloading_module, "CHUNK", 500)

    def full(remote: RemoteFile, n_bytes: int) -> None:
        if n_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")

    listener = Quiet()
    listener.at = full  # type: ignore[method-assign]
    with pytest.raises(FetchError, match=r"no room left in .* what is here is kept"):
        fetch(client(), hub_suite(), tmp_path, listener=listener)
    part = (tmp_path / "a.csv.part").stat().st_size
    assert 0 < part < len(BODY)
    fetch(client(), hub_suite(), tmp_path, listener=Quiet())
    assert upstream.bodies()[-1].headers["Range"] == f"bytes={part}-"
    assert (tmp_path / "a.csv").read_bytes() == BODY


def test_two_fetches_into_one_folder(upstream: Upstream, tmp_path: Path) -> None:
    import filelock

    upstream.hub("who/what", COMMIT, {"a.csv": b"a"})
    with filelock.FileLock(tmp_path / ".fetch.lock"), pytest.raises(FetchError, match="another fetch writes to"):
        fetch(client(), hub_suite(), tmp_path, listener=Quiet())


# suites.yaml ---------------------------------------------------------------------------------------------------------


def test_every_suite_is_well_described() -> None:
    assert {"routerbench", "alpaca-eval", "open-llm-leaderboard", "helm-lite", "vhelm", "llmrouterbench", "llmrouter",
            "routerdc", "routellm", "routereval", "embedllm", "mmr-bench"} <= set(suites())  # fmt: skip
    for name, found in suites().items():
        assert suite_of(name) is found
        assert found.page.startswith("https://") and found.command.startswith(f"roadtest benchmarks fetch {name}")
        assert f"--name {name} --format {found.format}" in found.importing(Path("/x y"))
        assert "'/x y" in found.importing(Path("/x y"))
        assert all(path in found.take and len(value) == 64 for path, value in found.sha256.items())
    assert suite_of("nothing") is None
    with pytest.raises(SuiteError, match="no suite 'routerbensh'; did you mean 'routerbench'"):
        find_suite("routerbensh")
