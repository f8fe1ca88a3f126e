"""The toolbox: programs really answer, each fills its own column alone, and routing by the question pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.benchmarks.base import embedded_sources
from workers.benchmarks.toolbox import PROGRAMS, Toolbox, ask, grade
from workers.benchmarks.toolbox.calculator import CALCULATOR
from workers.benchmarks.toolbox.calendar import CALENDAR
from workers.benchmarks.toolbox.generalist import GENERALIST
from workers.benchmarks.toolbox.handbook import HANDBOOK
from workers.benchmarks.toolbox.program import Program, Reply, count_tokens
from workers.benchmarks.toolbox.questions import FAMILIES, draw_questions
from workers.benchmarks.toolbox.reading import digits_for_words, evaluate, expression, formula, spell
from workers.benchmarks.toolbox.reasoner import REASONER
from workers.benchmarks.toolbox.wordsmith import WORDSMITH
from workers.splits import split_benchmark


@pytest.fixture(scope="module")
def benchmark():
    return Toolbox().load()


def test_it_is_found_and_is_large_enough(benchmark):
    assert embedded_sources()["toolbox"] is Toolbox
    assert benchmark.n_queries >= 3000
    assert [model.name for model in benchmark.models] == sorted(program.name for program in PROGRAMS)
    assert benchmark.n_models == 6
    assert sorted(set(benchmark.tasks)) == sorted(FAMILIES)
    assert benchmark.complete.all()


def test_no_prompt_repeats(benchmark):
    assert len(set(benchmark.texts)) == benchmark.n_queries == len(benchmark.source_groups)


def test_loading_twice_gives_the_same_bits(benchmark):
    assert Toolbox().load().fingerprint == benchmark.fingerprint


@pytest.mark.parametrize("changed", range(len(PROGRAMS)))
def test_changing_one_program_changes_only_its_column(changed):
    questions = draw_questions(8)
    S, C = ask(questions, PROGRAMS)
    parrot = Program(name="parrot", price_in=3.0, price_out=7.0, skills=(lambda text: Reply(answer=text, steps=5),))
    programs = [parrot if j == changed else program for j, program in enumerate(PROGRAMS)]
    S2, C2 = ask(questions, programs)
    others = np.arange(len(PROGRAMS)) != changed
    assert S2[:, others].tobytes() == S[:, others].tobytes()
    assert C2[:, others].tobytes() == C[:, others].tobytes()
    assert not np.array_equal(C2[:, changed], C[:, changed])
    assert not np.array_equal(S2[:, changed], S[:, changed])


def test_a_reply_depends_on_the_text_alone():
    questions = draw_questions(8)
    for program in PROGRAMS:
        forwards = [program.answer(question.text) for question in questions]
        backwards = [program.answer(question.text) for question in reversed(questions)]
        assert forwards == backwards[::-1]


def test_the_reference_answer_plays_no_part_in_the_cost():
    questions = draw_questions(4)
    _, C = ask(questions, PROGRAMS)
    _, C2 = ask([replace(question, answer="nothing") for question in questions], PROGRAMS)
    assert C.tobytes() == C2.tobytes()


def test_cost_is_price_times_tokens():
    program = Program(name="p", price_in=2.0, price_out=5.0, skills=())
    assert count_tokens("What is 2 + 2?") == 6
    cost = program.cost("What is 2 + 2?", Reply(answer="4 apples", steps=10))
    assert cost == pytest.approx((2.0 * 6 + 5.0 * (2 + 10)) * 1e-6)


def test_choosing_by_question_is_worth_it(benchmark):
    best_single = benchmark.S.mean(axis=0).max()
    assert benchmark.S.max(axis=1).mean() - best_single >= 0.05
    costs = benchmark.C.mean(axis=0) / benchmark.c_ref
    assert 0.1 < costs[benchmark.S.mean(axis=0).argmax()] < 0.9


def test_every_program_is_the_cheapest_right_one_somewhere(benchmark):
    costs_of_right = np.where(benchmark.S == 1, benchmark.C, np.inf)
    cheapest = np.isfinite(costs_of_right) & (costs_of_right == costs_of_right.min(axis=1, keepdims=True))
    assert (cheapest.mean(axis=0) > 0.02).all()


def test_every_program_is_right_only_sometimes_within_a_family(benchmark):
    tasks = np.array(benchmark.tasks)
    for j, model in enumerate(benchmark.models):
        means = [benchmark.S[tasks == task, j].mean() for task in FAMILIES]
        assert any(0.1 < mean < 0.9 for mean in means), model.name


def test_nearest_neighbours_beat_their_blind_twin_and_the_best_single_model(benchmark):
    """scikit-learn's kNN on character n-grams: independent of our encoders and routers."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.neighbors import KNeighborsRegressor

    X = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2048).transform(benchmark.texts)
    split = split_benchmark(benchmark, 0)
    S, C = benchmark.S, benchmark.C / benchmark.c_ref
    train, test = split.train, split.test
    blind = np.random.default_rng(0).permutation(train)

    def utility(order, price):
        targets = np.hstack([S[train], C[train]])
        knn = KNeighborsRegressor(n_neighbors=10, metric="cosine").fit(X[order], targets)
        predicted = knn.predict(X[test])
        choice = (predicted[:, :6] - price * predicted[:, 6:]).argmax(axis=1)
        rows = np.arange(len(test))
        return (S[test][rows, choice] - price * C[test][rows, choice]).mean()

    for price in (0.0, 0.1, 0.5, 1.0):
        single = (S[test] - price * C[test]).mean(axis=0).max()
        oracle = (S[test] - price * C[test]).max(axis=1).mean()
        sighted = utility(train, price)
        assert sighted > utility(blind, price) + 0.05
        assert single + 0.05 < sighted < oracle - 0.02


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("12", "12", 1.0),
        ("12.0000001", "12", 1.0),
        ("100.9", "100", 0.5),
        ("101.1", "100", 0.0),
        ("-7", "7", 0.0),
        ("", "7", 0.0),
        ("nan", "7", 0.0),
        ("0", "0", 1.0),
        ("paris", "Paris", 1.0),
        ("Rome", "Paris", 0.0),
        ("Alfa, Bravo, Delta", "Alfa, Bravo, Charlie", 2 / 3),
        ("Alfa, Bravo", "Alfa, Bravo, Charlie", 0.0),
        ("", "yes", 0.0),
    ],
)
def test_grades(answer, reference, score):
    assert grade(answer, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("program", "text", "answer"),
    [
        # Left to right without precedence, and an overflow of the eight digits.
        (CALCULATOR, "What is 3 + 4 * 5?", "35"),
        (CALCULATOR, "Calculate 99,999 * 2,000 exactly.", "E"),
        (CALCULATOR, "How much is 15 percent of 80?", "12"),
        (CALCULATOR, "How much is twelve plus five?", ""),
        (REASONER, "What is 3 + 4 * 5?", "23"),
        (REASONER, "Evaluate (3 + 4) * 5.", "35"),
        (GENERALIST, "Evaluate (3 + 4) * 5.", "23"),
        (GENERALIST, "What is 123 + 456?", "580"),
        (REASONER, "How much is two hundred and twelve plus five?", "217"),
        # 20 July 1969 was a Sunday, 1 January 2000 a Saturday.
        (CALENDAR, "What day of the week is 2000-01-01?", "Saturday"),
        (CALENDAR, "What day of the week is 1969-07-20?", ""),
        (CALENDAR, "What day of the week is January 1, 2000?", ""),
        (GENERALIST, "What day of the week is January 1, 2000?", "Saturday"),
        (CALENDAR, "How many days lie between 2024-02-01 and 2024-03-01?", "29"),
        (GENERALIST, "How many days lie between 2024-02-01 and 2024-03-01?", "30"),
        (REASONER, "Count the days from 2024-02-01 to 2024-03-01.", "29"),
        (REASONER, "Count the days from 2024-02-01 to 2024-12-01.", ""),
        (CALENDAR, "A shift runs from 23:30 to 00:15. How long is it in minutes?", "-1395"),
        (GENERALIST, "A shift runs from 23:30 to 00:15. How long is it in minutes?", "45"),
        (HANDBOOK, "What is the capital of Oman?", "Muscat"),
        (GENERALIST, "What is the capital of Oman?", ""),
        (GENERALIST, "Rome is the capital of which country?", "Italy"),
        (HANDBOOK, "Convert 2 miles to km.", "3.218688"),
        (GENERALIST, "Convert 2 miles to kilometres.", "3.2"),
        (REASONER, "Convert 2 miles to kilometres.", ""),
        (WORDSMITH, "Reverse 'lemon'.", "nomel"),
        (WORDSMITH, "Reverse the word lemon.", ""),
        (GENERALIST, "Reverse 'lemon'.", "omel"),
        (WORDSMITH, "Give the radio code words for 'bee'.", "Bravo, Echo, Echo"),
        (GENERALIST, "Write 4 in Roman numerals.", "IIII"),
        (REASONER, "Write 49 in Roman numerals.", "XLIX"),
        (REASONER, "Ann is older than Ben. Ida is younger than Ben. Who is the youngest?", "Ida"),
        (REASONER, "All bloops are wumps. Some wumps are drons. Must some bloops be drons?", "no"),
        (REASONER, "Truth value of true or false and false?", "true"),
        (GENERALIST, "Truth value of true or false and false?", "false"),
    ],
)
def test_what_programs_say(program, text, answer):
    assert program.answer(text).answer == answer


def test_number_words_round_trip():
    for number in range(1000):
        assert digits_for_words(f"about {spell(number)} eggs") == f"about {number} eggs"


def test_expressions_follow_python():
    for text in ("3 + 4 * 5", "(3 + 4) * 5 - 6 / 2", "2 * (3 + (4 - 1)) * 2"):
        operations = {"+": float.__add__, "-": float.__sub__, "*": float.__mul__, "/": float.__truediv__}
        value = evaluate(expression(f"What is {text}?"), lambda sign, a, b: operations[sign](float(a), float(b)))  # noqa: B023
        assert value == eval(text)


def test_formulas_follow_python():
    values = ("True", "False")
    shapes = ("{} and ({} or {})", "not {} or {} and {}", "not ({} and {}) or {}", "{} or {} and not {}")
    for shape in shapes:
        for a in values:
            for b in values:
                for c in values:
                    text = shape.format(a, b, c)
                    reply = REASONER.answer(f"What does {text.lower()} evaluate to?").answer
                    assert reply in ("", str(eval(text)).lower())
    assert formula("My friend and I wonder.") == []
