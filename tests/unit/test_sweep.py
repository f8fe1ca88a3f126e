from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from orchestrator.errors import SweepError
from orchestrator.sweep import BenchmarkEntry, Sweep, find_path
from workers.units import ProtocolOptions

TOP = Path(__file__).parents[2]
#: The example of design 6, word for word but for the comments.
EXAMPLE = """\
name: routerbench-part
benchmarks:
  - name: routerbench-part
    path: data/tables/routerbench_part
    embed: question
    tasks: each+all
encoders: [minilm, {name: minilm-bf16, use: minilm, dtype: bfloat16}, st:BAAI/bge-small-en-v1.5]
routers:
  - oracle
  - random
  - zero-router
  - task-zero
  - {name: knn@10, use: knn, k: 10}
  - {name: knn@100, use: knn, k: 100, twin: true}
  - {name: ridge@1, use: linear, penalty: 1}
  - knn
  - {name: mlp-wide, use: mlp, hidden: 200}
formulation: [utility]
seeds: 20
root_seed: 0
train_sizes: [1.0]
reference: knn
margin: 1.0
protocol: {lambda: exact, cost_normalizer: dearest_mean, left: "null", missing: complete, bootstrap: 200}
resources: {embed: {num_gpus: 0}, evaluate: {num_cpus: 1}}
"""
SMALL: dict[str, Any] = {"name": "s", "benchmarks": ["toolbox"], "encoders": ["hash-ngrams"], "routers": ["knn"]}


def sweep(**keys: Any) -> Sweep:
    return Sweep.from_dict({**SMALL, **keys})


def problem(**keys: Any) -> str:
    with pytest.raises(SweepError) as error:
        sweep(**keys)
    return str(error.value)


def test_the_example_of_the_design_is_read(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLE)
    read = Sweep.from_yaml(path)
    assert read.benchmarks == (
        [
            BenchmarkEntry(
                name="routerbench-part", path="data/tables/routerbench_part", embed="question", tasks="each+all"
            )
        ]
    )
    assert [(e.name, e.target, e.params) for e in read.encoders] == [
        ("minilm", "minilm", {}),
        ("minilm-bf16", "minilm", {"dtype": "bfloat16"}),
        ("st:BAAI/bge-small-en-v1.5", "st:BAAI/bge-small-en-v1.5", {}),
    ]
    assert [(r.name, r.target, r.params, r.twin) for r in read.routers][4:7] == [
        ("knn@10", "knn", {"k": 10}, False),
        ("knn@100", "knn", {"k": 100}, True),
        ("ridge@1", "linear", {"penalty": 1}, False),
    ]
    assert (read.seeds, read.root_seed, read.train_sizes, read.formulation) == (20, 0, [1.0], ["utility"])
    assert (read.reference, read.margin) == ("knn", 1.0)
    assert read.protocol.options() == ProtocolOptions()
    assert (read.resources.embed.num_gpus, read.resources.evaluate.num_cpus) == (0, 1)


def test_data_written_out_are_the_same_sweep() -> None:
    read = Sweep.from_dict(yaml.safe_load(EXAMPLE))
    assert Sweep.from_dict(read.as_dict()) == read
    assert read.as_dict()["protocol"]["lambda"] == "exact"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"seed": 5}, ["unknown key 'seed'", "did you mean 'seeds'"]),
        ({"benchmarks": [{"name": "toolbox", "task": "all"}]}, ["'benchmarks.0.task'", "did you mean 'tasks'"]),
        ({"protocol": {"lamda": "grid"}}, ["'protocol.lamda'", "did you mean 'lambda'"]),
        ({"resources": {"evaluate": {"num_cpu": 1}}}, ["'resources.evaluate.num_cpu'", "did you mean 'num_cpus'"]),
        ({"resources": {"evaluat": {}}}, ["'resources.evaluat'", "did you mean 'evaluate'"]),
        ({"zzz": 1}, ["unknown key 'zzz'", "known keys: name, benchmarks"]),
        ({"routers": [{"use": "knn"}]}, ["'routers.0.name' is missing"]),
        ({"seeds": 0}, ["seeds", "(given: 0)"]),
        ({"train_sizes": [0.0, 1.0]}, ["train_sizes", "0.0 is not a fraction"]),
        ({"train_sizes": [1.0, 1]}, ["train_sizes", "twice"]),
        ({"formulation": ["utility", "utility"]}, ["formulation", "twice"]),
        ({"formulation": "utilities"}, ["formulation", "'selection'"]),
        ({"protocol": {"left": "zero"}}, ["protocol.left", "(given: 'zero')"]),
        ({"name": "../up"}, ["name", "(given: '../up')"]),
        ({"routers": ["knn", {"name": "knn", "k": 5}]}, ["routers", "'knn' is given twice"]),
        ({"routers": [{"name": "knn", "twin": True}, {"name": "knn blind twin", "use": "mlp"}]}, ["twin", "rename"]),
        ({"reference": "knm"}, ["reference", "did you mean 'knn'?"]),
        ({"benchmarks": []}, ["benchmarks", "at least 1"]),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, Any], words: list[str]) -> None:
    message = problem(**keys)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: s\nbenchmarks: [toolbox\nrouters: [knn]\n", ["line 3"]),
        ("name: s\n  benchmarks: x\n", ["line 2"]),
        ("a: &x [*y]\n", ["line 1"]),
        ("- a\n- b\n", ["mapping", "list"]),
        ("", ["mapping", "NoneType"]),
        ("name: !!python/object/apply:os.system ['true']\n", ["line 1"]),
    ],
)
def test_malformed_yaml_names_file_and_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(SweepError) as error:
        Sweep.from_yaml(path)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xfa"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gone.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SweepError, match=r"gone\.yaml"):
        Sweep.from_yaml(path)


@pytest.mark.parametrize(
    ("keys", "reference"),
    [
        ({"routers": ["oracle", "mlp", "knn"]}, "knn"),
        ({"routers": ["oracle", "zero-hindsight", "mlp", "linear"]}, "mlp"),
        ({"routers": ["oracle"]}, None),
        ({"routers": ["knn", "mlp"], "reference": "mlp"}, "mlp"),
    ],
)
def test_reference_router(keys: dict[str, Any], reference: str | None) -> None:
    assert sweep(**keys).reference_router == reference


def test_short_forms() -> None:
    assert sweep(formulation="selection").formulation == ["selection"]
    assert sweep(protocol={"left": None}).protocol.left == "null"


def test_path_is_looked_for_under_shared_then_beside_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, beside = folder / "shared", folder / "beside"
    (shared / "a").mkdir(parents=True)
    (beside / "a").mkdir(parents=True)
    (beside / "b").mkdir()
    monkeypatch.setenv("ROADTEST_SHARED", str(shared))
    assert find_path("a", beside=beside) == shared / "a"
    assert find_path("b", beside=beside) == beside / "b"
    assert find_path(str(beside / "a"), beside=None) == beside / "a"
    with pytest.raises(SweepError, match="ROADTEST_SHARED") as error:
        find_path("c", beside=beside)
    assert str(shared / "c") in str(error.value)
    assert str(beside / "c") in str(error.value)


def documents() -> list[Any]:
    return [
        *(pytest.param(path.read_text(), id=path.name) for path in sorted((TOP / "sweeps").glob("*.yaml"))),
        pytest.param((TOP / "orchestrator" / "sweep-template.yaml").read_text(), id="template"),
        pytest.param(EXAMPLE, id="design"),
    ]


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    found = Sweep.model_json_schema(by_alias=True)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


@pytest.mark.parametrize("text", documents())
def test_schema_accepts_what_we_write(schema: Draft202012Validator, text: str) -> None:
    data = yaml.safe_load(text)
    Sweep.from_dict(data)
    assert [error.message for error in schema.iter_errors(data)] == []


@pytest.mark.parametrize(
    "keys",
    [{"seed": 5}, {"seeds": 0}, {"benchmarks": [3]}, {"protocol": {"lambda": "fine"}}, {"formulation": ["both"]}],
)
def test_schema_refuses_what_we_refuse(schema: Draft202012Validator, keys: dict[str, Any]) -> None:
    assert problem(**keys)
    assert not schema.is_valid({**SMALL, **keys})


def test_schema_accepts_short_forms(schema: Draft202012Validator) -> None:
    assert schema.is_valid({**SMALL, "formulation": "selection", "protocol": {"left": None}})


def test_write_sweep_fixture_writes_a_usable_file(write_sweep: Callable[..., Path]) -> None:
    assert Sweep.from_yaml(write_sweep(seeds=3)).seeds == 3
