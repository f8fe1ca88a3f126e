"""Which published suites are there, where are they from, and how is each imported?"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.errors import OrchestratorError
from workers.plugins import nearest

_FILE = Path(__file__).with_name("suites.yaml")
#: What a path of `take` may hold besides plain text, as regular expressions.
_GLOBS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{model}": "(?P<model>[^/]+)"}


class SuiteError(OrchestratorError):
    """There is no such suite, or not with these models."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(_Strict):
    """A dataset of the Hugging Face hub."""

    #: `owner/name`; `{model}` stands for a model's name with `__` for `/`.
    repo: str
    #: Commit, branch or tag.
    revision: str


class Github(_Strict):
    """A repository of GitHub."""

    repo: str
    revision: str


class Gcs(_Strict):
    """Runs of HELM in a public bucket of Google Cloud Storage."""

    bucket: str
    #: Folder of the bucket that holds `benchmark_output`.
    root: str
    #: A release, whose `runs_to_run_suites.json` says which runs it consists of ...
    release: str | None = None
    #: ... or the one suite to take.
    suite: str | None = None
    #: Take the pictures that the questions name too.
    pictures: bool = False

    @model_validator(mode="after")
    def _one(self) -> Gcs:
        if (self.release is None) == (self.suite is None):
            raise ValueError("one of release and suite")
        return self


class Suite(_Strict):
    """One published suite."""

    name: str
    title: str
    licence: str
    size: str
    #: The format that `benchmarks import` reads it as.
    format: str
    note: str
    #: What to import, below the folder.
    path: str = Field(default=".", alias="import")
    #: Command that unpacks an archive; `{folder}` is where it lies.
    unpack: str | None = None
    #: Whether its files are per model, and some have to be named.
    models: Literal["none", "some", "required"] = "none"
    #: Of several runs of a task (files `samples_<task>_<stamp>`) take the newest.
    newest: bool = False
    hub: Hub | None = None
    github: Github | None = None
    gcs: Gcs | None = None
    take: tuple[str, ...] = ()
    sha256: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _per_model(cls, raw: dict[str, object]) -> dict[str, object]:
        return {"models": "some" if "gcs" in raw or "{model}" in str(raw.get("take")) else "none", **raw}

    @model_validator(mode="after")
    def _one(self) -> Suite:
        if sum(source is not None for source in (self.hub, self.github, self.gcs)) != 1:
            raise ValueError("one of hub, github and gcs")
        return self

    @property
    def upstream(self) -> str:
        """Hub dataset, repository or bucket, in words."""
        if self.gcs is not None:
            return f"bucket {self.gcs.bucket}/{self.gcs.root}"
        source = self.hub or self.github
        assert source is not None
        return f"{'hub' if self.hub else 'github'} {source.repo}"

    @property
    def page(self) -> str:
        """Its page for people."""
        if self.gcs is not None:
            return (
                f"https://console.cloud.google.com/storage/browser/{self.gcs.bucket}/{self.gcs.root}/benchmark_output"
            )
        if self.hub is not None:
            return f"https://huggingface.co/datasets/{self.hub.repo}/tree/{self.hub.revision}"
        assert self.github is not None
        return f"https://github.com/{self.github.repo}/tree/{self.github.revision}"

    @property
    def command(self) -> str:
        """The command that fetches it."""
        return f"roadtest benchmarks fetch {self.name}" + (" --model ORG/MODEL" if self.models == "required" else "")

    def unpacking(self, folder: Path) -> str | None:
        """The command that unpacks it, None where there is nothing to unpack."""
        return None if self.unpack is None else self.unpack.format(folder=shlex.quote(str(folder)))

    def importing(self, folder: Path) -> str:
        """The command that imports it."""
        path = shlex.quote(str(folder / self.path))
        return f"roadtest benchmarks import {path} --name {self.name} --format {self.format}"


@cache
def suites() -> dict[str, Suite]:
    """Every suite of `suites.yaml`."""
    raw = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: Suite.model_validate({"name": name, **entry}) for name, entry in raw.items()}


def suite_of(name: str) -> Suite | None:
    """The published suite of this name; None where there is none."""
    return suites().get(name)


def find_suite(name: str) -> Suite:
    """The published suite of this name.

    Raises:
        SuiteError: There is none.
    """
    if (found := suite_of(name)) is None:
        raise SuiteError(
            f"no suite {name!r}; {nearest(name, list(suites()))} `roadtest benchmarks fetch --list` lists them."
        )
    return found


def suite_folder(home: Path, name: str) -> Path:
    """Where a suite's files are put unless `--to` says otherwise."""
    return home / "suites" / name


def as_regex(pattern: str) -> re.Pattern[str]:
    """A path of `take` as a regular expression with the group `model` where it has `{model}`."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\{model\})", pattern)
    return re.compile("".join(_GLOBS.get(part) or re.escape(part) for part in parts))
