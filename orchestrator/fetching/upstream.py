"""Which files does a suite consist of? Asks the hub, GitHub or the bucket for a listing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from orchestrator.errors import OrchestratorError
from orchestrator.fetching.downloading import Checksum, RemoteFile
from orchestrator.fetching.helm_bucket import list_runs
from orchestrator.fetching.listing import Listing, number, odd, take, text, unique
from orchestrator.fetching.suites import Github, Hub, Suite, SuiteError
from orchestrator.fetching.web import AnswerError, Client, FetchError, OfflineError, endpoint

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(/[A-Za-z0-9][A-Za-z0-9._+-]*)?")
_PAGES = 1000


def hub_client() -> Client:
    """A client to whom `HF_ENDPOINT` and `HF_TOKEN` say where the hub is and who asks."""
    token = (os.environ.get("HF_TOKEN") or "").strip() or None
    return Client(hub=endpoint("HF_ENDPOINT", "https://huggingface.co"), token=token)


def list_files(client: Client, suite: Suite, *, models: Sequence[str] = (), revision: str | None = None) -> Listing:
    """Ask upstream for a suite's files.

    Args:
        client: Asks.
        suite: Which.
        models: Take these alone; none: all.
        revision: Another commit, branch, release or suite than `suites.yaml` has.

    Raises:
        SuiteError: The models cannot be chosen, or are not there.
        FetchError: Upstream cannot be asked, or has nothing of this.
    """
    if models and suite.models == "none":
        raise SuiteError(f"suite {suite.name!r} has no files per model; leave --model out here, the import can filter.")
    if suite.models == "required" and not models:
        raise SuiteError(f"suite {suite.name!r}: name the models to take, --model ORG/MODEL, as often as you like.")
    for model in models:
        if not _MODEL.fullmatch(model):
            raise SuiteError(f"--model {model!r} is no name of a model; write it like ORG/MODEL.")
    if suite.hub is not None:
        return _of_hub(client, suite, suite.hub, models, revision or suite.hub.revision)
    if suite.github is not None:
        return _of_github(client, suite, suite.github, models, revision or suite.github.revision)
    assert suite.gcs is not None
    return list_runs(client, suite, suite.gcs, models, revision)


def explained(error: AnswerError, client: Client, suite: Suite) -> OrchestratorError:
    """The error with what to do: what is gated, private or gone."""
    if suite.hub is None or error.status not in (401, 403, 404):
        return error
    code = error.headers.get("x-error-code", "")
    if error.status == 404 or code in ("RepoNotFound", "RevisionNotFound", "EntryNotFound"):
        whom = " or such a model" if "{model}" in suite.hub.repo else ""
        return SuiteError(f"{error} There is no such dataset{whom}, or it is private (HF_TOKEN of who may read it).")
    found = re.search(r"/datasets/([^/]+/[^/]+)", str(error))
    page = f"{client.hub}/datasets/{found[1] if found else suite.hub.repo}"
    tried = "HF_TOKEN was sent, but may not read it" if client.token else "HF_TOKEN is not set"
    return FetchError(
        f"{error} It is gated, and {tried}: accept its conditions at {page}, make a token at "
        f"{client.hub}/settings/tokens and set HF_TOKEN. The token is sent to {client.hub} alone, and not stored."
    )


def _of_hub(client: Client, suite: Suite, hub: Hub, models: Sequence[str], revision: str) -> Listing:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise OfflineError("HF_HUB_OFFLINE is set, so the hub is not asked.")
    revisions: dict[str, str] = {}
    files: list[RemoteFile] = []
    missing = set(suite.take)
    per_model = "{model}" in hub.repo
    for repo in dict.fromkeys(hub.repo.format(model=m.replace("/", "__")) for m in (models if per_model else [""])):
        api = f"{client.hub}/api/datasets/{repo}"
        commit = revision
        if not _COMMIT.fullmatch(revision):
            commit = _commit(client, f"{api}/revision/{quote(revision, safe='')}")
        found = [_hub_file(client, repo, commit, entry) for entry in _hub_tree(client, f"{api}/tree/{commit}")]
        taken, unmatched = take(suite, [f for f in found if f is not None], () if per_model else models, revision)
        if not taken:
            raise FetchError(f"{client.hub}/datasets/{repo} at {commit[:12]} has none of {', '.join(suite.take)}.")
        files += taken
        missing &= set(unmatched)
        revisions[repo] = commit
    return Listing(revisions=revisions, files=unique(files), missing=sorted(missing))


def _hub_tree(client: Client, tree: str) -> Iterator[Any]:
    cursor = ""
    for _ in range(_PAGES):
        entries, headers = client.json(f"{tree}?recursive=true&expand=false{cursor}")
        if not isinstance(entries, list):
            raise odd(tree)
        yield from entries
        # Only the cursor of the next page is taken, so that its address stays the hub's.
        following = re.search(r'<([^>]*)>;\s*rel="next"', headers.get("link", ""))
        marks = parse_qs(urlsplit(following[1]).query).get("cursor") if following else None
        if not marks:
            return
        cursor = f"&cursor={quote(marks[0], safe='')}"
    raise odd(tree)


def _hub_file(client: Client, repo: str, commit: str, entry: Any) -> RemoteFile | None:
    if text(entry, "type", repo) != "file":
        return None
    path, lfs = text(entry, "path", repo), entry.get("lfs")
    url = f"{client.hub}/datasets/{repo}/resolve/{commit}/{quote(path)}"
    checksum = Checksum(kind="git", value=text(entry, "oid", repo))
    if isinstance(lfs, dict):
        checksum = Checksum(kind="sha256", value=text(lfs, "oid", repo))
    return RemoteFile(path=path, url=url, size=number(entry, "size", repo), checksum=checksum)


def _of_github(client: Client, suite: Suite, github: Github, models: Sequence[str], revision: str) -> Listing:
    repo = github.repo
    api = endpoint("ROADTEST_GITHUB_ENDPOINT", "https://api.github.com") + f"/repos/{repo}"
    raw = endpoint("ROADTEST_GITHUB_ENDPOINT", "https://raw.githubusercontent.com")
    commit = revision
    if not _COMMIT.fullmatch(revision):
        commit = _commit(client, f"{api}/commits/{quote(revision, safe='')}")
    url = f"{api}/git/trees/{commit}?recursive=1"
    tree, _ = client.json(url)
    if not isinstance(tree, dict) or not isinstance(tree.get("tree"), list) or tree.get("truncated"):
        raise odd(url)
    files = [
        RemoteFile(
            path=(path := text(entry, "path", url)),
            url=f"{raw}/{repo}/{commit}/{quote(path)}",
            size=number(entry, "size", url),
            checksum=Checksum(kind="git", value=text(entry, "sha", url)),
        )
        for entry in tree["tree"]
        if text(entry, "type", url) == "blob" and entry.get("mode") != "120000"  # no symbolic links
    ]
    taken, missing = take(suite, files, models, revision)
    if not taken:
        raise FetchError(f"https://github.com/{repo} at {commit[:12]} has none of {', '.join(suite.take)}.")
    return Listing(revisions={repo: commit}, files=unique(taken), missing=missing)


def _commit(client: Client, url: str) -> str:
    found = text(client.json(url)[0], "sha", url)
    if not _COMMIT.fullmatch(found):
        raise odd(url)
    return found
