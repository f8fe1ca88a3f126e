"""MMR-Bench's outcomes and pictures, on small files of its layout."""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.pictures import PICTURES, encoded
from workers.benchmarks import columns, identity, pictures
from workers.benchmarks.base import Benchmark
from workers.benchmarks.logs import ReadOptions, find_format, read_logs
from workers.benchmarks.mmr_bench import MMRBench
from workers.errors import BenchmarkError

PNG = encoded(PICTURES[3])
#: A name that ends in digits and one that holds the suffixes' separator.
MODELS = ("Qwen2.5-VL-3B", "Claude3-7V_Sonnet")
PARTS = ("prediction", "correct", "token", "cost")
HEAD = ["dataset_idx", "question", "answer", *(f"{model}_{part}" for model in MODELS for part in PARTS)]
HOSTILE = "<script>alert(1)</script>[bold]\x1b[2J"


def row(
    index: str, question: str = "what?", *, a: tuple[Any, ...] = (1, 0.5), b: tuple[Any, ...] = (0, 2)
) -> list[Any]:
    """Each model's correctness and cost; 20 tokens of output."""
    return [index, question, "42", *("yes", a[0], 20, a[1]), *("no", b[0], 30, b[1])]


def write(path: Path, *rows: list[Any], head: list[str] = HEAD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG)
    return str(path)


def read(path: Path, **options: Any) -> Benchmark:
    return read_logs(path, MMRBench, name="x", options=ReadOptions(**options))


def flagged(benchmark: Benchmark) -> dict[str, int]:
    return {reason: told["n"] for reason, told in benchmark.meta["join"]["flagged"].items()}


@pytest.mark.parametrize("name", ["MMR_Bench.csv", "MMR-Bench.csv"])
def test_questions_have_their_pictures_scores_and_costs(tmp_path: Path, name: str) -> None:
    write(
        tmp_path / name,
        row("MathVerse_7", a=("True", 0.5), b=("False", 2)),
        row("SEEDBench2_Plus_0", a=(1.0, 0.25), b=("", 3)),
        row("MMStar_12", a=(0, ""), b=(1, 4)),
    )
    write(tmp_path / "other.csv", row("MathVerse_7", "another question with the same id"))
    seven = picture(tmp_path / "MathVerse" / "7.png")
    zero = picture(tmp_path / "SEEDBenchv2Plus" / "0.jpg")
    assert find_format(tmp_path) is MMRBench
    b = read(tmp_path)
    assert sorted(model.name for model in b.models) == sorted(MODELS)
    at = {query.rpartition("/")[2]: i for i, query in enumerate(b.queries)}
    assert [b.tasks[at[q]] for q in ("MathVerse_7", "SEEDBench2_Plus_0", "MMStar_12")] == [
        "MathVerse",
        "SEEDBench2_Plus",
        "MMStar",
    ]
    assert [b.images[at[q]] for q in ("MathVerse_7", "SEEDBench2_Plus_0", "MMStar_12")] == [seven, zero, None]
    columns_of = [[model.name for model in b.models].index(model) for model in MODELS]
    np.testing.assert_array_equal(b.S[at["MathVerse_7"], columns_of], [1, 0])
    np.testing.assert_array_equal(b.C[at["MathVerse_7"], columns_of], [0.5, 2])
    np.testing.assert_array_equal(b.S[at["SEEDBench2_Plus_0"], columns_of], [1, np.nan])
    np.testing.assert_array_equal(b.S[at["MMStar_12"], columns_of], [np.nan, 1])
    assert b.extras["output_tokens"][at["MathVerse_7"], columns_of].tolist() == [20, 30]
    assert b.extras["response"][at["MathVerse_7"], columns_of].tolist() == ["yes", "no"]
    assert flagged(b) == {
        "an answer without a cost is not observed": 1,
        "a picture is not here; the question is without it": 1,
    }
    assert "not for USD" in b.meta["join"]["chosen"]["unit of costs"]
    assert b.meta["join"]["costs"] == {"log": 4}


def test_files_of_single_sets_name_their_pictures(tmp_path: Path) -> None:
    """As the toy data of MMR-Bench: `toy.csv` with pictures in `toy/`; absolute paths hold within the folder alone."""
    outside = picture(tmp_path / "elsewhere" / "1.png")
    home = tmp_path / "data"
    inside = [picture(home / "toy" / f"{i}.png") for i in range(2)]
    head = [*HEAD, "img_path"]
    write(
        home / "toy.csv",
        [*row("toy_0", "q0"), inside[0]],
        [*row("toy_1", "q1"), "1.png"],
        [*row("toy_2", "q2"), "toy/1.png"],
        [*row("toy_3", "q3"), outside],
        [*row("toy_4", "q4"), "https://example.org/a.png"],
        [*row("toy_5", "q5"), ""],
        [*row("", "q6"), ""],
        head=head,
    )
    write(home / "more.csv", row("more_0", "q7"))
    b = read(home)
    images = dict(zip(b.texts, b.images, strict=True))
    assert [images[f"q{i}"] for i in range(8)] == [*inside, inside[1], *[None] * 5]
    assert dict(zip(b.texts, b.tasks, strict=True)) == {**{f"q{i}": "toy" for i in range(7)}, "q7": "more"}
    assert flagged(b) == {
        "a picture lies outside of the table's folder; the question is without it": 1,
        "a picture is not here; the question is without it": 1,
        "a question names no picture": 3,
    }


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ("MMStar_../../secret", ""),
        ("MMStar_/etc/passwd", ""),
        ("MMStar_link", ""),
        ("x_0", "../secret.jpg"),
        ("x_0", "..\\secret.jpg"),
        ("x_0", "MMStar/../../secret.jpg"),
        ("x_0", "MMStar/linked/secret.jpg"),
    ],
)
def test_pictures_outside_of_the_folder_are_refused(tmp_path: Path, index: str, named: str) -> None:
    picture(tmp_path / "secret.jpg")
    home = tmp_path / "data"
    write(home / "MMR_Bench.csv", [*row(index), named], head=[*HEAD, "img_path"])
    (home / "MMStar").mkdir()
    (home / "MMStar" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (home / "MMStar" / "linked").symlink_to(tmp_path)
    with pytest.raises(BenchmarkError, match=r"line 2: its picture '.*' leads out of .*data; put pictures inside"):
        read(home)


@pytest.mark.parametrize("index", ["MMStar_a\0b", "MMStar_" + "x" * 5000, "MMStar_loop"])
def test_names_that_can_be_no_picture_are_counted(tmp_path: Path, index: str) -> None:
    write(tmp_path / "MMR_Bench.csv", row(index), row("MMStar_0"))
    picture(tmp_path / "MMStar" / "0.jpg")
    (tmp_path / "MMStar" / "loop.jpg").symlink_to("loop.jpg")
    assert flagged(read(tmp_path)) == {"a picture is not here; the question is without it": 1}


def test_a_file_too_large_to_be_a_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", len(PNG) - 1)
    write(tmp_path / "MMR_Bench.csv", row("MMStar_0"))
    picture(tmp_path / "MMStar" / "0.jpg")
    with pytest.raises(BenchmarkError, match=r"line 2: its picture .*0\.jpg is over 0 MB; check what it is"):
        read(tmp_path)


def test_repeated_rows_count_once_and_ids_of_two_questions_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "MMR_Bench.csv", row("MMStar_0"), row("MMStar_0", a=(0, 1)))
    b = read(tmp_path)
    assert b.n_queries == 1 and b.S.max() == 1
    assert b.meta["join"]["left_out"]["a repeated row, of which the first counts"]["n"] == 1
    write(path, row("MMStar_0"), row("MMStar_0", "who?"))
    with pytest.raises(BenchmarkError, match="line 3: 'MMStar_0' was another question before; ids must be unique"):
        read(tmp_path)


def test_models_without_costs_are_told(tmp_path: Path) -> None:
    write(
        tmp_path / "MMR_Bench.csv",
        [*row("MMStar_0", a=(1, 0), b=(1, 1)), 1],
        [*row("MMStar_1", a=(1, 0.0), b=(1, 0)), 1],
        head=[*HEAD, "c_correct"],
    )
    b = read(tmp_path)
    told = b.meta["join"]
    assert told["left_out"] == {"a model without a column of costs": {"n": 1, "such_as": ["c"]}}
    free = told["flagged"]["every cost of a model is 0, which may stand for a cost that is not known"]
    assert free == {"n": 1, "such_as": [MODELS[0]]}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limits of a kilobyte instead of megabytes."""
    before = csv.field_size_limit()
    monkeypatch.setattr(identity, "_MOST", 1000)
    monkeypatch.setattr(columns, "_MOST_HEADER", 1000)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"question,a_correct,a_cost\nq,1\n", "line 2: another number of fields than the header has"),
        (b'question,a_correct,a_cost\n"q,1,1\n', r"not a usable CSV file \(unexpected end of data\)"),
        (b"question,a_correct,a_cost\nq,maybe,1\n", "line 2: a_correct 'maybe' is no number that is at least 0"),
        (b"question,a_correct,a_cost\nq,1,-1\n", "line 2: a_cost '-1' is no number that is at least 0"),
        (b"question,a_correct,a_cost\nq,1,inf\n", "line 2: a_cost 'inf' is no number"),
        (b"question,a_correct,a_cost\nq,2,1\n", r"line 2: score 2 is outside \[0, 1\]"),
        (b"question,a_correct\nq,1\n", "a column question and a pair <model>_correct, <model>_cost are needed"),
        (b"question,a_correct,a_cost,a_cost\n", "the column 'a_cost' is there twice"),
        (b"", "the file is empty"),
        (b"question,a_correct,a_cost\n\xff,1,1\n", r"not a readable csv file .*utf-8"),
        (b"question,a_correct,a_cost\n" + b"q,1,1\n" * 3000 + b"\xff,1,1\n", r"not a usable CSV file .*utf-8"),
        ("question,a_correct,a_cost\nq,1,1\n".encode("utf-16"), "not a readable csv file"),
        (b"question,a_correct,a_cost\n" + b"x" * 2000 + b",1,1\n", "line 2: over 1,000 characters; no line is so long"),
        (b'question,a_correct,a_cost\n"' + b"x\n" * 2000 + b'",1,1\n', "field larger than field limit"),
        (b"x," * 2000 + b"question,a_correct,a_cost\nq,1,1\n", "line 1: over 1,000 characters; no line is so long"),
    ],
)
def test_broken_files_end_in_one_line_that_names_the_place(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "MMR_Bench.csv").write_bytes(content)
    MMRBench.recognises(tmp_path)
    with pytest.raises(BenchmarkError, match=words) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path)) and "\n" not in str(error.value)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("begin", ["", "question,a_correct,a_cost\n"])
def test_a_line_without_end_is_refused_before_it_is_held(tmp_path: Path, begin: str) -> None:
    (tmp_path / "MMR_Bench.csv").write_text(begin + "x" * (1 << 22))
    tracemalloc.start()
    try:
        with pytest.raises(BenchmarkError, match="over 1,000 characters"):
            read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "MMR_Bench.csv", row("MMStar_0"))
    with pytest.raises(BenchmarkError, match=r"no score 'corect'; did you mean 'correct'\?"):
        read(tmp_path, score="corect")
    with pytest.raises(BenchmarkError, match="variant 'x' means nothing here"):
        read(tmp_path, variant="x")


def test_hostile_text_stays_what_it_is(tmp_path: Path) -> None:
    head = ["dataset_idx", "question", f"{HOSTILE}_correct", f"{HOSTILE}_cost", f"{HOSTILE}_prediction"]
    write(tmp_path / "MMR_Bench.csv", [f"{HOSTILE}_0", HOSTILE, 1, 1, HOSTILE], head=head)
    b = read(tmp_path)
    assert (b.models[0].name, b.texts, b.tasks) == (HOSTILE, (HOSTILE,), (HOSTILE,))
    assert b.extras["response"][0, 0] == HOSTILE
