"""Which files of HELM's public bucket are a leaderboard's runs, and which pictures do their questions name?"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.fetching.downloading import Checksum, RemoteFile
from orchestrator.fetching.listing import Listing, chosen, number, odd, text, unique
from orchestrator.fetching.suites import Gcs, Suite, SuiteError
from orchestrator.fetching.web import AnswerError, Client, FetchError, endpoint

#: Of a run of HELM, the files that are read.
RUN_FILES = (
    "run_spec.json",
    "instances.json",
    "display_requests.json",
    "display_predictions.json",
    "per_instance_stats.json",
)
_FIELDS = "nextPageToken,items(name,size,md5Hash,contentEncoding)"
_PAGES = 1000


def list_runs(client: Client, suite: Suite, gcs: Gcs, models: Sequence[str], revision: str | None) -> Listing:
    """The runs of a release, which lie in several of HELM's suites, or those of one suite.

    Raises:
        SuiteError: There is no such release, suite or model.
        FetchError: The bucket cannot be asked.
    """
    output = f"{gcs.root}/benchmark_output"
    version = revision or gcs.release or gcs.suite or ""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", version):
        raise SuiteError(f"--revision {version!r} is no release of HELM; write it like v1.0.0.")
    runs = _release(client, gcs, f"{output}/releases/{version}/runs_to_run_suites.json") if gcs.release else None
    by_run: dict[str, dict[str, RemoteFile]] = {}
    for within in sorted(set(runs.values())) if runs is not None else [version]:
        for item in _items(client, gcs, f"{output}/runs/{within}/"):
            run, _, file = item.path.removeprefix(f"benchmark_output/runs/{within}/").rpartition("/")
            if file in RUN_FILES and (runs is None or runs.get(run) == within):
                by_run.setdefault(run, {})[file] = item
    model_of = {run: found[1] for run in by_run if (found := re.search(r"[:,]model=([^,]+)", run))}
    if not model_of:
        raise SuiteError(f"{suite.name}: no runs of {version!r} in {suite.page}")
    wanted = set(chosen(suite, sorted(set(model_of.values())), models))
    files = [file for run, model in model_of.items() if model in wanted for file in by_run[run].values()]
    schema = f"{output}/{'releases' if gcs.release else 'runs'}/{version}/schema.json"
    files.append(_without_size(gcs, schema))
    return Listing(revisions={f"{gcs.bucket}/{gcs.root}": version}, files=unique(files))


def pictures(suite: Suite, folder: Path, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The pictures of scenarios that questions on disk name, where they lie below the bucket's `benchmark_output`."""
    if suite.gcs is None or not suite.gcs.pictures:
        return []
    found: dict[str, RemoteFile] = {}
    for file in files:
        if not file.path.endswith("/instances.json"):
            continue
        try:
            places = list(_places(json.loads((folder / file.path).read_bytes())))
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise FetchError(f"{folder / file.path}: no instances of HELM; delete it and fetch again.") from None
        for place in places:
            _, inside, rest = f"/{place}".partition("/benchmark_output/")
            if inside and rest:
                picture = _without_size(suite.gcs, f"{suite.gcs.root}/benchmark_output/{rest}")
                found[picture.path] = picture
    return list(found.values())


def _places(instances: Any) -> Iterator[str]:
    for instance in instances:
        content = instance["input"].get("multimedia_content") or {}
        for media in content.get("media_objects") or []:
            if isinstance(place := media.get("location"), str) and not re.match(r"[a-z]+://", place):
                yield place


def _release(client: Client, gcs: Gcs, name: str) -> Mapping[str, str]:
    """Run -> the suite that it lies in."""
    url = _address(gcs, name)
    try:
        runs, _ = client.json(url)
    except AnswerError as error:
        if error.status != 404:
            raise
        raise SuiteError(f"there is no such release: {url} is not there.") from None
    if not isinstance(runs, dict) or not all(isinstance(s, str) and re.fullmatch(r"[\w.-]+", s) for s in runs.values()):
        raise odd(url)
    return runs


def _items(client: Client, gcs: Gcs, prefix: str) -> Iterator[RemoteFile]:
    url = f"{_host()}/storage/v1/b/{gcs.bucket}/o?prefix={quote(prefix, safe='')}&fields={quote(_FIELDS, safe='')}"
    token = ""
    for _ in range(_PAGES):
        page, _headers = client.json(url + token)
        items = page.get("items", []) if isinstance(page, dict) else None
        if not isinstance(items, list):
            raise odd(url)
        for item in items:
            yield _item(gcs, item, url)
        if not (following := page.get("nextPageToken")):
            return
        token = f"&pageToken={quote(str(following), safe='')}"
    raise odd(url)


def _item(gcs: Gcs, item: Any, url: str) -> RemoteFile:
    name = text(item, "name", url)
    bare = _without_size(gcs, name)
    if item.get("contentEncoding") not in (None, "", "identity"):  # unpacked on its way: other bytes than these
        return RemoteFile(path=bare.path, url=bare.url)
    try:
        md5 = b64decode(text(item, "md5Hash", url), validate=True).hex() if "md5Hash" in item else None
    except Base64Error:
        raise odd(url) from None
    checksum = Checksum(kind="md5", value=md5) if md5 else None
    return RemoteFile(path=bare.path, url=bare.url, size=number(item, "size", url), checksum=checksum)


def _without_size(gcs: Gcs, name: str) -> RemoteFile:
    return RemoteFile(path=name.removeprefix(f"{gcs.root}/"), url=_address(gcs, name), optional=True)


def _host() -> str:
    return endpoint("ROADTEST_GCS_ENDPOINT", "https://storage.googleapis.com")


def _address(gcs: Gcs, name: str) -> str:
    return f"{_host()}/{gcs.bucket}/{quote(name)}"
