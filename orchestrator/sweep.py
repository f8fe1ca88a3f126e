"""What does a user ask for? A sweep file, read and checked."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from orchestrator.errors import SweepError
from workers.units import Formulation, ProtocolOptions


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class BenchmarkEntry(_Strict):
    """One benchmark of a sweep; a bare string is its name."""

    name: str = Field(description="An imported or embedded benchmark, or with `path` the name to give it.")
    path: str | None = Field(
        None, description="Folder or file, tried under ROADTEST_SHARED, then beside the sweep file."
    )
    fetch: str | None = Field(
        None,
        description="Published suite of `roadtest benchmarks fetch`; `path` is inside of it. Skipped if not on disk.",
    )
    format: str | None = Field(
        None, description="How to read `path`, of `roadtest benchmarks formats`; default: what it looks like."
    )
    embed: str = Field("prompt", description="Column or field of the questions that encoders see.")
    score: str | None = Field(
        None, description="Column of `outcomes` (default `score`), or metric or scorer of logs (default the first)."
    )
    variant: str | None = Field(None, description="Filter or other variant of the answers, in logs that have several.")
    prices: str | None = Field(
        None, description="Table of prices (model, input, output: USD per 1M tokens; image: USD), found as `path` is."
    )
    scale: float = Field(1.0, gt=0, description="Highest score of the logs, such as 100 for percentages.")
    pool: str | None = Field(
        None, description="Keep the models of this pool, of `roadtest benchmarks pools`, at its prices."
    )
    tasks: Literal["all", "each", "each+all"] | list[str] = Field(
        "all",
        description="`all` together, `each` as a benchmark named <name>/<task>, `each+all`, or a list taken together.",
    )
    models: list[str] | None = Field(None, description="Candidate models to keep.")
    family: str | None = Field(None, description="Keep the models of this family.")
    bad_images: Literal["refuse", "skip"] = Field(
        "refuse", description="`skip` leaves out, and reports, queries whose image cannot be decoded."
    )
    queries: int | None = Field(None, ge=10, description="Keep so many queries (nested subsamples).")


class _Named(BaseModel):
    """An entry whose other keys are parameters of what it names."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="Display name; the name of the thing itself when `use` is not given.")
    use: str | None = Field(None, description="What to use under this name.")

    @property
    def target(self) -> str:
        """Registered name of what is used."""
        return self.use or self.name

    @property
    def params(self) -> dict[str, Any]:
        """Parameters given in the file."""
        return dict(self.model_extra or {})


class EncoderEntry(_Named):
    """One encoder; other keys are its parameters."""


class RouterEntry(_Named):
    """One router; other keys are its parameters."""

    twin: bool = Field(False, description="Run its blind twin too: the same router on permuted training embeddings.")
    tune: bool | None = Field(None, description="Tune the tunables that are not given; default: when none is given.")


class Protocol(_Strict):
    """Options of the protocol; they are part of a result's identity."""

    lambda_: Literal["exact", "grid"] = Field("exact", alias="lambda")
    cost_normalizer: Literal["dearest_mean", "max_observed"] = "dearest_mean"
    #: YAML reads a bare null as None.
    left: Annotated[
        Literal["null", "cheapest", "flat"],
        BeforeValidator(
            lambda value: "null" if value is None else value,
            json_schema_input_type=Literal["null", "cheapest", "flat"] | None,
        ),
    ] = "null"
    missing: Literal["complete"] = "complete"
    bootstrap: int = Field(200, ge=0, le=10_000, description="Resamples of the test groups stored with each unit.")
    tuning_budget: int = Field(20, ge=2, le=1000, description="Configurations that every tuned router gets.")

    def options(self) -> ProtocolOptions:
        """As the workers want it."""
        return ProtocolOptions(**self.model_dump())


class StageResources(_Strict):
    """What one Ray worker of a stage reserves."""

    num_cpus: float = Field(1, gt=0)
    num_gpus: float = Field(
        0, ge=0, description="GPUs that a worker is given; text models, CLIP and torch routers use one that is there."
    )
    memory: int | None = Field(
        None,
        gt=0,
        description="Bytes that a worker reserves and may allocate; a unit that needs more fails.",
    )
    timeout: float = Field(3600, gt=0, description="Seconds after which a unit counts as hung.")


class Resources(_Strict):
    """Resources per stage."""

    embed: StageResources = StageResources()
    evaluate: StageResources = StageResources()
    measure: StageResources = StageResources()


class Study(_Strict):
    """What a sweep asks besides which router is better; a bare string is its kind."""

    kind: Literal["learning-curve", "shift", "locality", "scaling", "maintenance", "calibration"] = Field(
        description="`learning-curve`: how many labels; `shift`: every pair of tasks, trained on one and tested on the "
        "other; `locality`: whether performance is local in the embedding, and what routers keep with part of "
        "it permuted; `scaling`: cost of routing as labels grow; `maintenance`: labels and models that come later; "
        "`calibration`: how often tests and intervals err on drawn data, with the sweep's routers and number of splits."
    )
    doses: list[float] = Field(
        [0.25, 0.5, 0.75, 1.0], description="locality: fractions of the queries whose embeddings are permuted."
    )
    permutations: int = Field(999, ge=19, le=100_000, description="locality: permutations of the null.")
    sizes: list[int] = Field(
        [1_000, 10_000, 100_000, 1_000_000], min_length=1, description="scaling: numbers of labelled queries."
    )
    labelled: int = Field(100, ge=2, description="maintenance: queries that a model which comes later is tried on.")
    repetitions: int = Field(2000, ge=20, description="calibration: data sets that are drawn, rounded up to batches.")
    drawn: list[Annotated[int, Field(ge=20)]] = Field(
        [400, 1200], min_length=1, description="calibration: numbers of queries of a data set."
    )

    @field_validator("doses")
    @classmethod
    def _doses_are_fractions(cls, value: list[float]) -> list[float]:
        for dose in value:
            if not 0 < dose <= 1:
                raise ValueError(f"{dose} is not a fraction; give values above 0 and up to 1")
        return value


#: Training sizes of a learning curve that names none.
CURVE = [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0]


def _bare_names(entry: type[BaseModel]) -> BeforeValidator:
    """A bare string in a list of entries is an entry's name."""

    def entries(value: Any) -> Any:
        return (
            [{"name": item} if isinstance(item, str) else item for item in value] if isinstance(value, list) else value
        )

    return BeforeValidator(entries, json_schema_input_type=list[str | entry])  # type: ignore[valid-type]


class Sweep(_Strict):
    """Benchmarks x encoders x routers x splits, and the protocol that scores them."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$", max_length=100, description="The sweep's name in the database."
    )
    benchmarks: Annotated[list[BenchmarkEntry], _bare_names(BenchmarkEntry)] = Field(min_length=1)
    encoders: Annotated[list[EncoderEntry], _bare_names(EncoderEntry)] = Field(default_factory=list)
    routers: Annotated[list[RouterEntry], _bare_names(RouterEntry)] = Field(min_length=1)
    formulation: Annotated[
        list[Formulation],
        BeforeValidator(
            lambda value: [value] if isinstance(value, str) else value,
            json_schema_input_type=Formulation | list[Formulation],
        ),
    ] = Field(["utility"], min_length=1)
    seeds: int = Field(20, ge=1, le=10_000, description="Number of splits: indices 0 .. seeds - 1.")
    root_seed: int = Field(0, ge=0, lt=2**63)
    train_sizes: list[float] = Field([1.0], min_length=1, description="Fractions of the training side, nested.")
    reference: str | None = Field(
        None,
        description="Router that verdicts compare against; default `knn`, else the first that reads no test outcome.",
    )
    margin: float = Field(1.0, gt=0, description="Margin of equivalence in AUC points.")
    protocol: Protocol = Protocol()
    resources: Resources = Resources()

    @field_validator("train_sizes", "formulation")
    @classmethod
    def _no_value_is_given_twice(cls, value: list[Any]) -> list[Any]:
        if len(set(value)) != len(value):
            raise ValueError(f"{value} holds a value twice; give each once")
        return value

    @field_validator("train_sizes")
    @classmethod
    def _sizes_are_fractions(cls, value: list[float]) -> list[float]:
        for size in value:
            if not 0 < size <= 1:
                raise ValueError(f"{size} is not a fraction of the training side; give values above 0 and up to 1")
        return value

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for key in ("benchmarks", "encoders", "routers"):
            for name, n in Counter(entry.name for entry in getattr(self, key)).items():
                if n > 1:
                    raise ValueError(f"{key}: the name {name!r} is given twice; give one of them another `name:`")
        names = dict.fromkeys(entry.name for entry in self.routers)
        for entry in self.routers:
            if entry.twin and f"{entry.name} blind twin" in names:
                raise ValueError(f"routers: {entry.name!r} has a twin of the name of another router; rename that one")
        if self.reference is not None and self.reference not in names:
            close = difflib.get_close_matches(self.reference, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "routers: " + ", ".join(names)
            raise ValueError(f"reference: no router {self.reference!r} in this sweep; {hint}")
        return self

    study: Annotated[
        Study | None,
        BeforeValidator(
            lambda value: {"kind": value} if isinstance(value, str) else value, json_schema_input_type=str | Study
        ),
    ] = Field(None, description="A study besides the comparison.")

    @model_validator(mode="before")
    @classmethod
    def _curves_have_sizes(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("study") in ("learning-curve", {"kind": "learning-curve"}):
            return {"train_sizes": CURVE, **data}
        return data

    #: Folder of the sweep file, where relative paths of benchmarks are looked for too.
    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """Folder of the file that it was read from."""
        return self._folder

    @classmethod
    def from_yaml(cls, path: str | Path) -> Sweep:
        """Read a sweep file.

        Raises:
            SweepError: Not readable, not YAML, an unknown key (with the nearest known one) or a bad value.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SweepError(f"{path}: no such sweep file; `roadtest init {path}` writes one to start from.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SweepError(f"{path}: cannot be read ({error}).") from error
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or "not YAML"
            raise SweepError(
                f"{path}{at}: malformed YAML: {problem}. Mend the indentation or quoting there."
            ) from error
        if not isinstance(data, dict):
            raise SweepError(
                f"{path}: a sweep file is a mapping with `name`, `benchmarks` and `routers`; "
                f"this is {type(data).__name__}."
            )
        sweep = cls.from_dict(data, where=str(path))
        sweep._folder = path.resolve().parent
        return sweep

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str = "sweep") -> Sweep:
        """Check a sweep given as data.

        Raises:
            SweepError: As `from_yaml`.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise SweepError(f"{where}: " + " ".join(_explain(error))) from error

    def as_dict(self) -> dict[str, Any]:
        """The sweep as plain data, defaults filled in and keys in the file's order; what the database stores."""
        return self.model_dump(by_alias=True, mode="json", exclude_none=True)

    @property
    def reference_router(self) -> str | None:
        """Display name of the router that verdicts compare against, None when all are references themselves."""
        from workers.routers.base import routers

        if self.reference:
            return self.reference
        known = routers()
        names = [entry.name for entry in self.routers if not (entry.target in known and known[entry.target].privileged)]
        return "knn" if "knn" in names else names[0] if names else None


def _explain(error: ValidationError) -> Iterator[str]:
    models: dict[str, type[BaseModel]] = {
        "benchmarks": BenchmarkEntry,
        "protocol": Protocol,
        "resources": Resources,
        "study": Study,
        "embed": StageResources,
        "evaluate": StageResources,
        "measure": StageResources,
    }
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        where = ".".join(location)
        if problem["type"] == "extra_forbidden":
            parents = [part for part in location[:-1] if part in models]
            model = models[parents[-1]] if parents else Sweep
            known = [field.alias or name for name, field in model.model_fields.items()]
            close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "known keys: " + ", ".join(known) + "."
            yield f"unknown key {where!r}; {hint}"
        elif problem["type"] == "missing":
            yield f"key {where!r} is missing."
        else:
            message = re.sub(r"^Value error, ", "", problem["msg"])
            given = "" if problem["type"] == "value_error" else f" (given: {problem['input']!r})"
            yield f"{where + ': ' if where else ''}{message}{given}."


def find_path(path: str, *, beside: Path | None, key: str = "path") -> Path:
    """Where a benchmark's path is: absolute, or under ROADTEST_SHARED (default `../shared`), or beside the sweep file.

    Args:
        path: As the sweep file has it.
        beside: Folder of the sweep file.
        key: Which key of the entry holds it.

    Raises:
        SweepError: In none of these places.
    """
    given = Path(path).expanduser()
    if given.is_absolute():
        places = [given]
    else:
        places = [Path(os.environ.get("ROADTEST_SHARED", "../shared")) / given, (beside or Path()) / given]
    for place in places:
        if place.exists():
            return place
    tried = " and ".join(str(place) for place in places)
    raise SweepError(
        f"benchmark {key} {path!r} is neither of {tried}; set ROADTEST_SHARED to the folder that holds it, "
        f"or correct `{key}:`."
    )
