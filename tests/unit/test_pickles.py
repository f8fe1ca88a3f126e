"""Pickles are read without running them; whatever is no data is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.benchmarks import unpickling
from workers.benchmarks.load import load_benchmark
from workers.benchmarks.pickles import read_frame, read_pickle
from workers.benchmarks.unpickling import RefusedError, read_plain
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
WRITTEN = SHARED / "data" / "fixtures" / "routerbench_pickle" / "pickles"


def u(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def named(module: str, name: str) -> bytes:
    return u(module) + u(name) + pickle.STACK_GLOBAL


def array(values: list[Any], shape: tuple[int, ...], core: str = "numpy._core") -> bytes:
    """An object array as numpy pickles it."""
    reduced = named(f"{core}.multiarray", "_reconstruct") + named("numpy", "ndarray")
    reduced += b"K\x00\x85" + pickle.SHORT_BINBYTES + b"\x01b" + pickle.TUPLE3 + pickle.REDUCE
    kind = named("numpy", "dtype") + u("O8") + b"\x89\x88" + pickle.TUPLE3 + pickle.REDUCE
    kind += b"(K\x03" + u("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t" + pickle.BUILD
    items = pickle.EMPTY_LIST + b"(" + b"".join(_value(value) for value in values) + pickle.APPENDS
    return reduced + b"(K\x01" + _value(shape) + kind + b"\x89" + items + b"t" + pickle.BUILD


def _value(value: Any) -> bytes:
    body = pickle.dumps(value, protocol=2)  # without frames
    return body[2:-1]


def frame(columns: dict[str, list[Any]], manager: str = "pandas.core.internals.managers") -> bytes:
    """A data frame of object columns as pandas 1 and 2 pickle it, without pandas."""
    rows = len(next(iter(columns.values())))
    block = named("pandas._libs.internals", "_unpickle_block")
    block += array([value for column in columns.values() for value in column], (len(columns), rows))
    block += named("builtins", "slice") + _value((0, len(columns), 1)) + pickle.REDUCE + b"K\x02"
    block += pickle.TUPLE3 + pickle.REDUCE
    new = named("pandas.core.indexes.base", "_new_Index")
    names = new + named("pandas.core.indexes.base", "Index")
    names += (
        b"}(" + u("data") + array(list(columns), (len(columns),)) + u("name") + b"Nu" + pickle.TUPLE2 + pickle.REDUCE
    )
    index = new + named("pandas.core.indexes.range", "RangeIndex")
    index += _value({"name": None, "start": 0, "stop": rows, "step": 1}) + pickle.TUPLE2 + pickle.REDUCE
    blocks = named(manager, "BlockManager") + block + pickle.TUPLE1 + b"](" + names + index + b"e"
    blocks += pickle.TUPLE2 + pickle.REDUCE
    whole = named("pandas.core.frame", "DataFrame") + b")" + pickle.NEWOBJ
    return b"\x80\x04" + whole + b"}(" + u("_mgr") + blocks + u("_typ") + u("dataframe") + b"u" + pickle.BUILD + b"."


WIDE = {
    "sample_id": ["a.1", "a.2", "b.1"],
    "prompt": ["['Which?']", "['Why?']", "['<script>']"],
    "eval_name": ["a", "a", "b"],
    "org/big": [1.0, 0.5, None],
    "small": [0.0, 1.0, 1.0],
    "org/big|total_cost": [0.02, 0.03, 0.01],
    "small|total_cost": [0.002, 0.003, 0.001],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "routerbench_0shot.pkl"


def test_routerbench_as_pandas_pickles_it(file: Path) -> None:
    file.write_bytes(frame(WIDE))

    benchmark = load_benchmark("rb", path=file)

    assert [model.name for model in benchmark.models] == ["org/big", "small"]
    assert list(benchmark.texts) == ["Which?", "Why?", "<script>"]
    np.testing.assert_array_equal(benchmark.S, [[1.0, 0.0], [0.5, 1.0], [np.nan, 1.0]])
    np.testing.assert_array_equal(benchmark.C, [[0.02, 0.002], [0.03, 0.003], [np.nan, 0.001]])


def test_parquet_and_pickle_are_the_same_benchmark(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.write_bytes(frame(WIDE))
    pq.write_table(pa.table(WIDE), file.with_suffix(".parquet"))

    pickled, parquet = (load_benchmark("rb", path=file.with_suffix(end)) for end in (".pkl", ".parquet"))

    assert pickled.fingerprint == parquet.fingerprint
    assert load_benchmark("rb", path=file.parent).fingerprint == parquet.fingerprint  # a folder of both: parquet first


@pytest.mark.skipif(not WRITTEN.is_dir(), reason=f"{WRITTEN} is not here (ROADTEST_SHARED)")
def test_the_files_that_pandas_wrote() -> None:
    means = set()
    for path in sorted(WRITTEN.glob("*.pkl")):
        if "pd3" in path.name:
            with pytest.raises(BenchmarkError, match="write it as Parquet"):
                load_benchmark("rb", path=path)
        else:
            benchmark = load_benchmark("rb", path=path)
            means.add((benchmark.n_queries, *np.nanmean(benchmark.S, axis=0).round(12)))
    assert means == {(4, 0.75, 0.5)}


def test_dicts_of_arrays_as_numpy_pickles_them(file: Path) -> None:
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    held = {
        "easy": {3: {"scores": scores, "model": np.array(["m1", "m2", "m3"])}},
        "column_major": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "texts": ["α", None],
        "flags": np.array([True, False]),
    }
    names = [("easy", "3", "scores"), ("easy", "3", "model"), ("column_major",), ("texts",), ("flags",)]
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        file.write_bytes(pickle.dumps(held, protocol=protocol))
        plain = read_plain(file)
        assert list(plain) == names
        np.testing.assert_array_equal(plain["easy", "3", "scores"], scores)
        assert plain["easy", "3", "model"] == ["m1", "m2", "m3"]
        np.testing.assert_array_equal(plain["column_major",], np.arange(6).reshape(2, 3))
        assert plain["texts",] == ["α", None]
        np.testing.assert_array_equal(plain["flags",], [True, False])


HOSTILE = {
    "a call of the system": b"\x80\x04" + named("posix", "system") + u("echo") + b"\x85R.",
    "protocol 0": b"cposix\nsystem\n(S'echo'\ntR.",
    "INST": b"(S'echo'\niposix\nsystem\n.",
    "eval": b"\x80\x04" + named("builtins", "eval") + u("1") + b"\x85R.",
    "an allowed package": b"\x80\x04" + named("numpy.testing", "runstring") + u("1") + b"}" + b"\x86R.",
    "pandas' own reader": b"\x80\x04" + named("pandas", "read_pickle") + u("x") + b"\x85R.",
    "a dotted name": b"\x80\x04" + named("pandas.core.frame", "DataFrame.query") + b".",
    "a scalar": b"\x80\x04" + named("numpy._core.multiarray", "scalar") + b".",
    "state on a class": b"\x80\x04" + named("pandas.core.indexes.base", "Index") + b"N}" + u("x") + u("y") + b"s\x86b.",
    "state on a record's class": b"\x80\x04" + named("numpy", "dtype") + b"}" + u("real") + u("y") + b"sb.",
    "state on a slice": b"\x80\x04" + named("builtins", "slice") + b"K\x01\x85R}" + u("x") + u("y") + b"sb.",
    "a call of a text": b"\x80\x04" + u("x") + b")R.",
    "an instance of a function": b"\x80\x04" + named("_codecs", "encode") + b")\x81.",
    "NEWOBJ_EX": b"\x80\x04" + named("pandas.core.frame", "DataFrame") + b")}\x92.",
    "a codec": b"\x80\x04" + named("_codecs", "encode") + u("x") + u("rot13") + b"\x86R.",
    "a persistent id": b"\x80\x04" + u("x") + b"Q.",
    "a registered extension": b"\x80\x02\x82\x01.",
    "an object among texts": b"\x80\x04" + array([{"a": 1}], (1,)) + b".",
    "too few values": b"\x80\x04" + array(["x"], (1 << 40,)) + b".",
    "another number": b"\x80\x04K\x01.",
    "cut off": frame(WIDE)[:-40],
    "nothing": b"",
    "no pickle": b"sample_id,prompt\n",
    "a list in itself": b"\x80\x04]\x94h\x00a.",
    "dicts without an end": b"\x80\x04}\x94" + u("x") + b"h\x00s.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_is_no_data_is_refused(file: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import copyreg

    ran: list[object] = []
    monkeypatch.setattr("posix.system", ran.append)
    copyreg.add_extension("posix", "system", 1)
    try:
        file.write_bytes(HOSTILE[what])
        known = dict(vars(unpickling._Dtype))
        with pytest.raises(RefusedError):
            read_plain(file)
        assert not ran
        assert dict(vars(unpickling._Dtype)) == known
    finally:
        copyreg.remove_extension("posix", "system", 1)


def test_the_hostile_files_would_do_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own reader runs them: what is refused above is not refused for being damaged."""
    ran: list[object] = []
    monkeypatch.setattr("posix.system", ran.append)
    for what in ("a call of the system", "protocol 0", "INST"):
        pickle.loads(HOSTILE[what])
    assert ran == ["echo"] * 3


def test_only_named_pairs_resolve() -> None:
    reader = unpickling._Watched(io.BytesIO(b"."))
    for module, name in [("numpy", "dtype.type"), ("numpy.core", "multiarray"), ("os", "system"), ("builtins", "exec")]:
        with pytest.raises(RefusedError, match=name):
            reader.find_class(module, name)


def test_a_text_named_again_and_again_does_not_grow(file: Path) -> None:
    text = "x" * 100_000
    file.write_bytes(pickle.dumps({"a": [text] * 1000}))
    with pytest.raises(RefusedError, match="more text than"):
        read_plain(file)


@pytest.mark.skipif(sys.platform != "linux", reason="bounds of memory are of Linux")
def test_memory_is_bounded_and_the_message_names_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A memo of lists that double: 2^40 references would be 8 TB if they were followed.
    doubled = b"".join(b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(40))
    file.write_bytes(b"\x80\x04]\x94" + doubled + b".")
    with pytest.raises(BenchmarkError, match=r"routerbench_0shot\.pkl: not read, .*Pickles are never run"):
        read_pickle(file)
    monkeypatch.setattr("workers.benchmarks.pickles.BYTES", 60 << 20)
    monkeypatch.setattr("workers.benchmarks.pickles.BYTES_EACH", 0)
    file.write_bytes(b"\x80\x04]" + (b"(" + b"K\x01" * 10_000 + b"l") * 2000 + b"l.")
    with pytest.raises(BenchmarkError, match="memory"):
        read_pickle(file)
    file.write_bytes(b"\x80\x04" + pickle.BINUNICODE8 + struct.pack("<Q", 1 << 50) + b"x.")
    with pytest.raises(BenchmarkError, match="memory"):
        read_pickle(file)


def test_a_frame_is_asked_for(file: Path) -> None:
    file.write_bytes(pickle.dumps({"a": {"b": [1]}}))
    with pytest.raises(BenchmarkError, match="not of one data frame"):
        read_frame(file)


SIDES = {"train": [3, 0], "val": [1], "test": [2]}


def router_eval(pools: dict[str, Any]) -> dict[str, Any]:
    return {
        **pools,
        "split_index": {f"{side}_indices": np.array(rows) for side, rows in SIDES.items()},
        "embedding": {f"{side}_embed": np.zeros((len(rows), 2)) for side, rows in SIDES.items()},
        "prompt": {f"{side}_prompt": [f"question {row}" for row in rows] for side, rows in SIDES.items()},
    }


def pool(models: list[str], best: float = 1.0) -> dict[str, Any]:
    scores = {row: [((row + j) % 2) * best for j in range(len(models))] for row in range(4)}
    data = {f"{side}_score": np.array([scores[row] for row in rows]) for side, rows in SIDES.items()}
    return {"data": data, "model": np.array(models)}


def test_routereval_reads_the_pool_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "arc_router_dataset.pkl"
    pools = {"easy": {3: {"all_strong": pool(["a", "b", "c"])}, 5: {"all_weak": pool(list("abcde"), 0.5)}}}
    file.write_bytes(pickle.dumps(router_eval(pools)))
    prices = tmp_path / "prices.csv"
    prices.write_text("model,input,output\n" + "".join(f"{model},1,1\n" for model in "abcde"))

    first = load_benchmark("re", path=tmp_path, prices=prices)
    other = load_benchmark("re", path=file, variant="easy/5/all_weak", prices=prices)

    assert [model.name for model in first.models] == ["a", "b", "c"]
    assert first.meta["join"]["chosen"]["pool"] == "easy/3/all_strong"
    at = list(first.texts).index("question 3")
    np.testing.assert_array_equal(first.S[at], [1, 0, 1])
    assert len(other.models) == 5 and np.nanmax(other.S) == 0.5
    with pytest.raises(BenchmarkError, match="easy/3/all_strong"):
        load_benchmark("re", path=file, prices=prices, variant="hard/3/all_strong")


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"prompt": {"train_prompt": ["x"], "val_prompt": ["x"], "test_prompt": ["x"]}}, "of 1 prompts"),
        ({"prompt": {}}, "no texts under 'prompt/train_prompt'"),
        ({"easy": {3: {"all_strong": {"model": ["a"], "data": {}}}}}, "no numbers under"),
        ({"easy": {}}, "no pool of models"),
        ({"split_index": {"train_indices": np.array([1])}}, "1 train_indices of 2 prompts"),
    ],
)
def test_a_damaged_routereval_file_says_what_is_missing(tmp_path: Path, broken: dict[str, Any], says: str) -> None:
    held = router_eval({"easy": {3: {"all_strong": pool(["a", "b"])}}}) | broken
    (tmp_path / "arc_router_dataset.pkl").write_bytes(pickle.dumps(held))
    with pytest.raises(BenchmarkError, match=says):
        load_benchmark("re", path=tmp_path)


def test_what_the_child_writes_is_read_back_in_order(file: Path) -> None:
    file.write_bytes(pickle.dumps({"b": ["x"], "a": [1.5], "c": ["y"]}))
    assert [json.dumps(name) for name in read_pickle(file)] == ['["b"]', '["a"]', '["c"]']


def test_the_folder_that_one_stands_in_and_the_environment_stay_out(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded folder may hold a `json.py`; the child neither imports it nor sees secrets."""
    file.write_bytes(pickle.dumps({"a": [1.5]}))
    for name in ("json", "numpy", "workers"):
        (file.parent / f"{name}.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("PYTHONPATH", str(file.parent))
    np.testing.assert_array_equal(read_pickle(Path(file.name))["a",], [1.5])
