from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.catalog import imported_folder, imported_names, load_benchmarks, load_encoders, load_source
from orchestrator.errors import OrchestratorError, SweepError
from orchestrator.sweep import BenchmarkEntry, EncoderEntry, Sweep
from workers.benchmarks.load import load_benchmark
from workers.benchmarks.tables import save_tables
from workers.embed import unique_inputs
from workers.errors import BenchmarkError, EncoderError


def load(folder: Path, **entry: Any) -> list[Any]:
    data = {"name": "s", "benchmarks": [{"name": "tiny", "path": "tiny", **entry}], "routers": ["zero-router"]}
    return load_benchmarks(Sweep.from_dict(data), home=folder / "home", beside=folder)


@pytest.mark.parametrize(
    ("tasks", "names", "sizes"),
    [
        ("all", ["tiny"], [60]),
        ("each", ["tiny/colour", "tiny/count"], [30, 30]),
        ("each+all", ["tiny/colour", "tiny/count", "tiny"], [30, 30, 60]),
        (["count"], ["tiny"], [30]),
        (["count", "colour"], ["tiny"], [60]),
    ],
)
def test_tasks(tiny: Path, tasks: Any, names: list[str], sizes: list[int]) -> None:
    found = load(tiny.parent, tasks=tasks)
    assert [evaluated.name for evaluated in found] == names
    assert [evaluated.benchmark.n_queries for evaluated in found] == sizes
    single = {"tiny/colour": "colour", "tiny/count": "count", "tiny": "count" if tasks == ["count"] else None}
    assert [evaluated.task for evaluated in found] == [single[name] for name in names]


def test_tasks_and_pools_share_the_source_and_its_groups(tiny: Path) -> None:
    found = load(tiny.parent, tasks="each+all", family="north")
    assert len({id(evaluated.source) for evaluated in found}) == 1
    assert found[0].source.n_models == 3
    assert all([m.name for m in evaluated.benchmark.models] == ["large", "medium"] for evaluated in found)
    assert all(evaluated.benchmark.source_groups == found[0].source.source_groups for evaluated in found)


def test_keys_of_an_entry_do_something(tiny: Path) -> None:
    [plain], [strict] = load(tiny.parent), load(tiny.parent, score="strict")
    assert strict.benchmark.S[0].tolist() == (plain.benchmark.S[0] / 2).tolist()
    [question] = load(tiny.parent, embed="question")
    assert plain.source.texts[0].startswith("Answer this: ")
    assert question.source.texts[0] == plain.source.texts[0].removeprefix("Answer this: ")
    [few], [fewer] = load(tiny.parent, queries=40), load(tiny.parent, queries=20)
    assert (few.benchmark.n_queries, fewer.benchmark.n_queries) == (40, 20)
    assert set(fewer.benchmark.queries) < set(few.benchmark.queries)
    assert len(unique_inputs(few.source, "text").inputs) == 40
    [pool] = load(tiny.parent, models=["small", "large"])
    assert [model.name for model in pool.benchmark.models] == ["large", "small"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"tasks": ["color"]}, "no task 'color'; did you mean 'colour'?"),
        ({"models": ["larg"]}, "no model 'larg'; did you mean 'large'?"),
        ({"family": "west"}, "no model of family 'west'"),
        ({"models": ["large"], "family": "south"}, "the pool is empty"),
        ({"models": []}, "the pool is empty"),
        ({"queries": 61}, "61 asked for, 60 there"),
        ({"embed": "questio"}, "no column 'questio'"),
        ({"score": "strct"}, "no column 'strct'"),
    ],
)
def test_filters_that_do_not_fit_are_named(tiny: Path, entry: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchmarkError) as error:
        load(tiny.parent, **entry)
    assert words in str(error.value)


def test_each_task_of_a_benchmark_without_tasks_is_refused(tiny: Path) -> None:
    lines = (tiny / "queries.csv").read_text().splitlines()
    (tiny / "queries.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines) + "\n")
    with pytest.raises(SweepError, match="name no task"):
        load(tiny.parent, tasks="each+all")


def test_the_display_name_is_not_the_suite(tiny: Path) -> None:
    [one], [other] = load(tiny.parent), load(tiny.parent, name="other")
    assert one.benchmark.suite == other.benchmark.suite == "tiny"
    assert one.benchmark.fingerprint == other.benchmark.fingerprint


def test_an_import_is_found_by_name_and_keeps_groups(tiny: Path) -> None:
    home = tiny.parent / "home"
    whole = load_benchmark("tiny", path=tiny)
    save_tables(whole.restrict(tasks=["count"]), imported_folder(home) / "mine")
    (imported_folder(home) / ".half").mkdir()
    assert imported_names(home) == ["mine"]
    found = load_source(BenchmarkEntry(name="mine"), home=home, beside=None)
    assert (found.n_queries, found.suite) == (30, "tiny")
    assert found.source_groups == whole.source_groups


def test_an_unknown_benchmark_names_the_nearest(folder: Path) -> None:
    with pytest.raises(SweepError, match=r"unknown benchmark 'toolbx'; did you mean 'toolbox'\?"):
        load_source(BenchmarkEntry(name="toolbx"), home=folder, beside=None)


def test_encoders_carry_their_display_name() -> None:
    [named] = load_encoders([EncoderEntry.model_validate({"name": "narrow", "use": "hash-ngrams", "dim": 64})])
    assert (named.name, named.encoder.name, named.encoder.recipe()["dim"]) == ("narrow", "hash-ngrams", 64)
    with pytest.raises(EncoderError, match="unknown encoder"):
        load_encoders([EncoderEntry(name="nothing")])


# published suites and shifts


def fetched(folder: Path, *benchmarks: dict[str, Any], study: str | None = None) -> list[Any]:
    data = {"name": "s", "benchmarks": list(benchmarks), "routers": ["zero-router"], "study": study}
    return load_benchmarks(Sweep.from_dict(data), home=folder / "home", beside=folder)


def test_a_suite_that_is_not_on_disk_is_skipped_with_the_command_that_brings_it(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tiny.parent / "home" / "suites").mkdir(parents=True)
    (tiny.parent / "home" / "suites" / "embedllm").symlink_to(tiny)
    here = {"name": "here", "fetch": "embedllm", "tasks": ["count"]}
    absent = {"name": "absent", "fetch": "routellm"}
    (found,) = fetched(tiny.parent, here, absent)
    assert (found.name, found.benchmark.n_queries, found.benchmark.suite) == ("here", 30, "embedllm")
    assert "benchmark absent skipped" in caplog.text
    assert "roadtest benchmarks fetch routellm" in caplog.text
    with pytest.raises(SweepError, match=r"none of the benchmarks is on disk.*: roadtest benchmarks fetch routellm\.$"):
        fetched(tiny.parent, absent, {**absent, "name": "again"})


def test_an_unknown_suite_is_named(tiny: Path) -> None:
    with pytest.raises(OrchestratorError, match=r"no suite 'routelm'; did you mean 'routellm'"):
        fetched(tiny.parent, {"name": "x", "fetch": "routelm"})


def test_a_study_of_shifts_has_every_pair_of_tasks_at_one_size(tiny: Path) -> None:
    found = fetched(tiny.parent, {"name": "tiny", "path": "tiny"}, study="shift")
    assert [(evaluated.name, evaluated.task) for evaluated in found] == [
        ("tiny/colour→colour", "colour"),
        ("tiny/count→colour", "colour"),
        ("tiny/colour→count", "count"),
        ("tiny/count→count", "count"),
    ]
    assert {evaluated.benchmark.shift.n_train for evaluated in found} == {15}  # half of 30 queries of each task
    assert len({id(evaluated.source) for evaluated in found}) == 1
    with pytest.raises(SweepError, match="needs two tasks or more; it has 1"):
        fetched(tiny.parent, {"name": "tiny", "path": "tiny", "tasks": ["count"]}, study="shift")
