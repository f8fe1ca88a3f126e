from __future__ import annotations

import json
import os
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from workers.benchmarks.base import EXTRAS, Model
from workers.errors import RouterError
from workers.routers.base import Calls, Mixture, Prediction, Router, Side, routers, untuned_params
from workers.routers.knn import KNN
from workers.routers.linear import Linear
from workers.saving import FORMAT, _digest, load_router, read_state, save_router, write_state

NAN = np.nan
PLAIN = sorted(
    (name, form)
    for name, cls in routers().items()
    if not cls.privileged
    for form in cls.formulations
    if not set(cls(**untuned_params(cls, {}, n_train=80)).requirements()) & set(EXTRAS)
)


class Keeper(Router):
    """Keeps whatever it is told to."""

    name = "keeper"
    needs = ("text", "response")

    def __init__(self, *, setting: object = None) -> None:
        self.setting = setting


class Changed(Keeper):
    version = "2"


def keeping(**state):
    router = Keeper()
    vars(router).update(state)
    return router


def there_and_back(router, folder, cls=Keeper):
    save_router(router, folder / "saved")
    return load_router(folder / "saved", cls=cls)


def fitted(name, form, train):
    cls = routers()[name]
    params = untuned_params(cls, {}, n_train=train.n)
    router = cls(**{**params, **({"epochs": 1} if "epochs" in params else {})})
    rng = np.random.default_rng(3)
    return router.fit(train, rng) if form == "utility" else router.fit_selector(train, 0.5, rng)


def parts(answer):
    if isinstance(answer, Prediction | Calls | Mixture):
        return [getattr(answer, field.name) for field in fields(answer)]
    return [answer]


def holds_side(value):
    if isinstance(value, dict):
        return any(map(holds_side, value.values()))
    return any(map(holds_side, value)) if isinstance(value, list | tuple) else isinstance(value, Side)


@pytest.fixture
def every_warning():
    """Torch warns of read-only arrays once in a process unless told otherwise."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.usefixtures("every_warning")
@pytest.mark.parametrize(("name", "form"), PLAIN)
def test_a_loaded_router_answers_as_the_one_that_was_saved(name, form, random_sides, tmp_path):
    train, queries = random_sides()
    train, queries = (replace(side, texts=tuple(f"prompt {i}" for i in side.rows)) for side in (train, queries))
    router = fitted(name, form, train)
    save_router(router, tmp_path / "router")
    again = load_router(tmp_path / "router")
    assert type(again) is type(router) and again.params() == router.params()
    assert again.n_bytes == router.n_bytes
    # Another array that holds the same queries elsewhere, as a deployed router meets it.
    elsewhere = replace(queries, matrix=queries.X, embedding_rows=np.arange(queries.n), rows=np.arange(queries.n))
    before, after = (r.predict(elsewhere) if form == "utility" else r.select(elsewhere) for r in (router, again))
    for one, other in zip(parts(before), parts(after), strict=True):
        if any(holds_side(value) for value in vars(router).values()):
            # Products of the queries with another matrix may differ in the last bits.
            assert other == pytest.approx(one, abs=1e-5)
        else:
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


def test_values_of_every_kind_come_back(tmp_path):
    state = {
        "none_": None,
        "flags_": [True, False],
        "whole_": -(2**70),
        "floats_": (0.1, -0.0, 5e-324, 1.0, float("nan"), float("inf"), -float("inf")),
        "text_": "λ \ud800 \N{GRINNING FACE} \0",
        "nested_": {"a/../b": [(), {}, ({"": [None]},)], "dict": {"array": "0"}},
        "models_": (Model(name="m", family="f", price_in=0.5), Model(name="n")),
        "scalar_": np.float32(0.1),
    }
    again = vars(there_and_back(keeping(**state), tmp_path))
    assert repr(again["floats_"]) == repr(state["floats_"])
    assert again.pop("scalar_") == np.float32(0.1) and type(vars(keeping(**state))["scalar_"]) is np.float32
    del again["floats_"]
    assert again == {"setting": None, **{key: state[key] for key in again if key != "setting"}}


@pytest.mark.parametrize(
    "array",
    [
        *(np.arange(6, dtype=kind).reshape(2, 3) for kind in "bBhHiIlLefd"),
        np.array([True, False]),
        np.array(3.5),
        np.zeros((0, 4)),
        np.array([NAN, -0.0, np.inf]),
        np.array([["a", "λ\N{GRINNING FACE}"], ["", "longer"]]),
        np.array("alone"),
        np.zeros((0, 2), dtype="U3"),
        np.array([["answer", None], ["", "λ \ud800"]], dtype=object),
        np.zeros((3, 0), dtype=object),
        np.arange(24.0).reshape(2, 3, 4)[:, ::2, 1:],
        np.broadcast_to(np.arange(3.0), (2, 3)),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_of_every_kind_come_back_read_only(array, tmp_path):
    again = there_and_back(keeping(array_=array, list_=[array]), tmp_path)
    for found in (again.array_, again.list_[0]):
        assert found.dtype == array.dtype and found.shape == array.shape
        assert not found.flags.writeable
        assert found.tolist() == array.tolist() if array.dtype.kind in "OU" else found.tobytes() == array.tobytes()


def test_columns_first_stays_columns_first(tmp_path):
    array = np.arange(6.0).reshape(2, 3).T
    found = there_and_back(keeping(array_=array), tmp_path).array_
    assert found.strides == array.strides and (found == array).all() and not found.flags.writeable


def test_an_array_that_is_kept_twice_is_written_once(tmp_path):
    array = np.zeros(1000)
    there_and_back(keeping(one_=array, two_={"again": array}), tmp_path)
    assert (tmp_path / "saved/router.safetensors").stat().st_size < 1000 * 8 + 500


def test_a_side_keeps_its_own_rows_and_what_the_router_declares(random_sides, tmp_path):
    train, _ = random_sides()
    response = np.full(train.scores.shape, "answer", dtype=object)
    margin = np.zeros(train.scores.shape)
    train = replace(train, texts=("text",) * train.n, extras={"response": response, "margin": margin})
    found = there_and_back(keeping(train_=train), tmp_path).train_
    assert found.matrix.tobytes() == train.X.tobytes() and found.matrix.shape == (80, 6)
    assert found.rows.tolist() == found.embedding_rows.tolist() == list(range(80))
    assert (found.tasks, found.models, found.texts) == (train.tasks, train.models, train.texts)
    assert found.groups.tolist() == train.groups.tolist()
    assert found.scores.tobytes() == train.scores.tobytes() and found.costs.tobytes() == train.costs.tobytes()
    assert list(found.extras) == ["response"]
    assert found.extras["response"].tolist() == response.tolist()
    assert not any(a.flags.writeable for a in (found.matrix, found.rows, found.groups, found.scores))


def test_prompts_stay_at_home_unless_the_router_reads_them(random_sides, tmp_path):
    train, _ = random_sides()
    train = replace(train, texts=("secret prompt",) * train.n)
    save_router(KNN(k=3).fit(train, np.random.default_rng(0)), tmp_path / "saved")
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "saved").iterdir())


def test_a_side_without_embeddings_and_outcomes_comes_back(random_sides, tmp_path):
    _, queries = random_sides()
    found = there_and_back(keeping(side_=replace(queries, matrix=None)), tmp_path).side_
    assert found.matrix is None and found.scores is None and found.texts is None and found.n == queries.n


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({1: "a"}, "keys that are not text"),
        ({"a": [object()]}, r"fitted bad_\['a'\]\[0\] is a object"),
        (np.array([1, object()], dtype=object), "objects other than text"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "dtype datetime64"),
        (np.zeros(2, dtype=">f8"), "dtype >f8"),
        (np.zeros(2, dtype=[("a", "f8")]), "dtype"),
        (np.ma.masked_array([1.0]), "MaskedArray"),
        ({1, 2}, "is a set"),
        (b"raw", "is a bytes"),
        (len, "is a builtin_function_or_method"),
        (Linear(penalty=1.0), "is a Linear"),
    ],
)
def test_what_cannot_be_saved_is_named(value, why, tmp_path):
    with pytest.raises(RouterError, match=why) as caught:
        save_router(keeping(bad_=value), tmp_path / "saved")
    assert "router 'keeper'" in str(caught.value) and "bad_" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_list_inside_itself_is_refused(tmp_path):
    endless = []
    endless.append(endless)
    with pytest.raises(RouterError, match="nested more than"):
        save_router(keeping(bad_=endless), tmp_path / "saved")


def test_attributes_that_are_not_fitted_are_left(tmp_path):
    router = keeping(cache=object(), kept_=1)
    assert set(vars(there_and_back(router, tmp_path))) == {"setting", "kept_"}


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "saved").mkdir()
    save_router(keeping(a_=1), tmp_path / "saved")  # empty: free to use
    before = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    with pytest.raises(RouterError, match="exists already"):
        save_router(keeping(a_=2), tmp_path / "saved")
    assert {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RouterError, match=r"file/saved: cannot be written"):
        save_router(keeping(), tmp_path / "file/saved")


def test_nothing_is_left_of_a_write_that_failed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RouterError, match="No space left"):
        save_router(keeping(a_=np.zeros(3)), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_another_version_of_the_router_is_refused(tmp_path):
    save_router(keeping(a_=1), tmp_path / "saved")
    with pytest.raises(RouterError, match="version 1 of router 'keeper', installed is version 2"):
        load_router(tmp_path / "saved", cls=Changed)


def test_an_unknown_router_and_another_class_are_refused(tmp_path):
    save_router(keeping(a_=1), tmp_path / "saved")
    with pytest.raises(RouterError, match="unknown router 'keeper'"):
        load_router(tmp_path / "saved")
    with pytest.raises(RouterError, match="holds router 'keeper', not 'linear'"):
        load_router(tmp_path / "saved", cls=Linear)


@pytest.fixture
def saved(tmp_path):
    """A saved linear router, and a way to change its JSON so that the digest still fits."""
    router = Linear(penalty=1.0)
    router.coefficients_, router.intercepts_ = np.ones((3, 4)), np.zeros(4)
    save_router(router, tmp_path / "saved")
    return tmp_path / "saved"


def forge(folder, change):
    path, arrays = folder / "router.json", folder / "router.safetensors"
    content = json.loads(path.read_text())
    del content["sha256"]
    change(content)
    content["sha256"] = _digest(content, arrays)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["router.json", "router.safetensors"])
def test_missing_and_damaged_files_are_named(saved, name):
    whole = (saved / name).read_bytes()
    for damaged in (b"", whole[:-2], whole[: len(whole) // 2], whole[:9], b"\x80\x04N.", whole + b"x"):
        (saved / name).write_bytes(damaged)
        with pytest.raises(RouterError, match=r"saved/router\.(json|safetensors): the file is damaged"):
            load_router(saved)
    (saved / name).unlink()
    with pytest.raises(RouterError, match=f"saved/{name}: the file is missing"):
        load_router(saved)


def test_every_changed_byte_is_noticed(saved):
    for name in ("router.json", "router.safetensors"):
        whole = (saved / name).read_bytes()
        for place in range(0, len(whole), 7):
            changed = bytearray(whole)
            changed[place] ^= 1
            (saved / name).write_bytes(changed)
            try:
                again = load_router(saved)
            except RouterError:
                continue
            # White space between the values of the JSON says nothing.
            assert chr(whole[place]).isspace() and again.coefficients_.tolist() == np.ones((3, 4)).tolist()
        (saved / name).write_bytes(whole)
    load_router(saved)


@pytest.mark.parametrize("number", [FORMAT + 1, 0, "1", None, [1]])
def test_an_unknown_format_is_refused(saved, number):
    forge(saved, lambda content: content.update(state_format=number))
    with pytest.raises(RouterError, match="this version reads 1"):
        load_router(saved)


@pytest.mark.parametrize(
    "text", ["[]", "3", '"text"', "null", "{}", "[" * 100_000, '{"state_format": NaN}', "1" * 5000, "\xff"]
)
def test_json_that_is_no_router_is_refused(saved, text):
    (saved / "router.json").write_text(text, encoding="latin-1")
    with pytest.raises(RouterError, match=r"router\.json: the file is damaged"):
        load_router(saved)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "os.system", "/etc", "", None, ["linear"], {"a": 1}])
def test_a_name_of_a_router_opens_no_file(saved, name):
    forge(saved, lambda content: content.update(router=name))
    with pytest.raises(RouterError, match="unknown router"):
        load_router(saved)


@pytest.mark.parametrize("name", ["__class__", "__dict__", "predict", "penalty", "a.b_", "../x_", "", "_"])
def test_only_fitted_names_are_set(saved, name):
    forge(saved, lambda content: content["fitted"].update({name: 1}))
    if name == "_":
        assert vars(load_router(saved))["_"] == 1
    else:
        with pytest.raises(RouterError, match="is no fitted attribute"):
            load_router(saved)


SIDE = {
    "matrix": None,
    "tasks": ["a", "b"],
    "groups": {"array": "2"},
    "models": [{"model": ["m", None, None, None]}],
    "scores": None,
    "costs": None,
    "texts": None,
    "extras": {"dict": {}},
}


@pytest.mark.parametrize(
    "node",
    [
        {"array": "../../etc/passwd"},
        {"array": "99"},
        {"array": ["0"]},
        {"array": 0},
        {"array": "0", "scalar": "0"},
        {"pickle": "gASVHAAAAAAAAACMAm9zlIwGc3lzdGVtlJOU"},
        {},
        {"scalar": "7"},
        {"float": "1e400"},
        {"float": 1},
        {"tuple": "abc"},
        {"tuple": {"a": 1}},
        {"dict": [1]},
        {"model": []},
        {"model": [1, 2, 3, 4]},
        {"text": "ab", "shape": [2]},
        {"text": [1, 2], "shape": [2]},
        {"text": [], "shape": [10**18]},
        {"text": [], "shape": [0, 10**30]},
        {"text": [], "shape": [1] * 100},
        {"text": ["a"], "shape": [2, 3]},
        {"text": ["a"]},
        {"unicode": "0"},
        {"side": {}},
        {"side": {**SIDE, "tasks": ["a"] * 3}},
        {"side": {**SIDE, "tasks": [1, 2]}},
        {"side": {**SIDE, "tasks": 10**9}},
        {"side": {**SIDE, "groups": {"array": "0"}}},
        {"side": {**SIDE, "models": ["m"]}},
        {"side": {**SIDE, "texts": ["a"]}},
        {"side": {**SIDE, "scores": {"array": "0"}}},
        {"side": {**SIDE, "costs": [1, 2]}},
        {"side": {**SIDE, "matrix": {"array": "0"}}},
        {"side": {**SIDE, "matrix": {"array": "2"}}},
        {"side": {**SIDE, "extras": {"dict": {"response": {"array": "0"}}}}},
        {"side": {**SIDE, "extras": {"dict": {"response": 1}}}},
        {"side": {**SIDE, "extras": None}},
    ],
    ids=lambda node: json.dumps(node)[:60],
)
def test_state_that_nobody_wrote_is_refused(node, tmp_path):
    router = Linear(penalty=1.0)
    router.coefficients_, router.intercepts_, router.more_ = np.ones((3, 4)), np.zeros(4), np.arange(2)
    save_router(router, tmp_path / "saved")
    forge(tmp_path / "saved", lambda content: content["fitted"].update(more_={"side": SIDE}))
    assert load_router(tmp_path / "saved").more_.tasks == ("a", "b")
    forge(tmp_path / "saved", lambda content: content["fitted"].update(bad_=node))
    with pytest.raises(RouterError, match=r"router\.json: the file is damaged"):
        load_router(tmp_path / "saved")


@pytest.mark.parametrize("part", ["params", "fitted"])
@pytest.mark.parametrize("value", [None, [], 3, "text"])
def test_parts_of_another_kind_are_refused(saved, part, value):
    forge(saved, lambda content: content.update({part: value}))
    with pytest.raises(RouterError, match=r"router\.json: the file is damaged"):
        load_router(saved)


@pytest.mark.parametrize("params", [{"penalty": -1}, {"penalty": "lots"}, {"unknown": 1}])
def test_parameters_that_the_router_refuses_are_its_error_with_the_file(saved, params):
    forge(saved, lambda content: content.update(params=params))
    with pytest.raises(RouterError, match=r"router\.json: router 'linear'"):
        load_router(saved)


def tensors(header, data=b""):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**8) + b"{}",
        tensors(b"not json"),
        tensors({"0": {"dtype": "F64", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)),
        tensors({"0": {"dtype": "F64", "shape": [10**12], "data_offsets": [0, 8 * 10**12]}}, bytes(8)),
        tensors({"0": {"dtype": "F64", "shape": [1], "data_offsets": [8, 0]}}, bytes(8)),
        tensors({"0": {"dtype": "F64", "shape": [1], "data_offsets": [-8, 0]}}, bytes(8)),
        tensors({"0": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
        tensors({"0": {"dtype": "object", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        tensors({"0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        tensors({"0": {"dtype": "F64", "shape": [1] * 100, "data_offsets": [0, 8]}}, bytes(8)),
    ],
)
def test_hostile_tensors_are_refused(saved, raw):
    (saved / "router.safetensors").write_bytes(raw)
    forge(saved, lambda content: None)
    with pytest.raises(RouterError, match=r"router\.safetensors: the file is damaged"):
        load_router(saved)


def test_a_described_state_comes_back(tmp_path):
    write_state(tmp_path / "a/b", {"format": 7, "names": ["x"]}, {"table": np.eye(2), "n": 3}, name="deployed.json")
    assert sorted(file.name for file in (tmp_path / "a/b").iterdir()) == ["deployed.json", "deployed.safetensors"]
    description, state = read_state(tmp_path / "a/b", name="deployed.json")
    assert description == {"format": 7, "names": ["x"]}
    assert state["n"] == 3 and state["table"].tolist() == [[1, 0], [0, 1]]
    with pytest.raises(RouterError, match=r"router\.json: the file is missing"):
        load_router(tmp_path / "a/b")
