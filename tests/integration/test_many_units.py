"""Does the memory of planning, enlisting and explaining depend on how many units there are?"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder
from orchestrator.cli.output import print_rows
from orchestrator.enlist import enlist
from orchestrator.explain import explain_all
from orchestrator.plan import Plan, plan_sweep
from orchestrator.store import open_store
from orchestrator.sweep import Sweep
from workers.benchmarks.base import Benchmark, Model
from workers.encoders.base import make_encoder

SEEDS = 100
FEW, MANY = 2_000, 20_000
#: Bytes that a unit more may cost: its share of its group's and its router's entry. An object of its own takes 3000.
PER_UNIT = 100


def make_sweep(n_units: int) -> Sweep:
    routers = [{"name": f"ridge-{i}", "use": "linear", "penalty": 1 + i} for i in range(n_units // SEEDS)]
    return Sweep.from_dict(
        {"name": f"s{n_units}", "benchmarks": ["b"], "encoders": ["hash-ngrams"], "routers": routers, "seeds": SEEDS}
    )


def make_plan(n_units: int) -> Plan:
    rng = np.random.default_rng(0)
    found = Benchmark.build(
        name="b",
        queries=[f"q{i}" for i in range(40)],
        prompts=[f"prompt {i}" for i in range(40)],
        models=[Model(name=name) for name in "ab"],
        S=rng.random((40, 2)),
        C=rng.random((40, 2)),
    )
    sweep = make_sweep(n_units)
    encoders = [NamedEncoder(name=e.name, entry=e, encoder=make_encoder(e.target, e.params)) for e in sweep.encoders]
    return plan_sweep(sweep, [EvaluatedBenchmark(name="b", task=None, benchmark=found, source=found)], encoders)


def peak(work: Callable[[], object]) -> int:
    """Bytes that Python holds at most while it works, beyond what it held before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_unit_more_costs_no_memory_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Small stretches, so that few units fill several too.
    monkeypatch.setattr("orchestrator.enlist.STRETCH", 500)
    monkeypatch.setattr("orchestrator.explain.STRETCH", 500)
    store = open_store(f"sqlite:///{folder}/roadtest.db")

    def everything(n_units: int) -> None:
        plan = make_plan(n_units)
        enlist(store, plan)
        with store.read() as session:
            explained = explain_all(session, plan)
            print_rows(({"unit": unit.key, "state": state} for unit, state, _ in explained), as_json=True)

    everything(SEEDS)  # what is imported and cached once
    capfd.readouterr()
    peaks = []
    for n_units in (FEW, MANY):
        peaks.append(peak(partial(everything, n_units)))
        rows = json.loads(capfd.readouterr().out)
        assert len(rows) == n_units + 1
        assert {row["state"] for row in rows} == {"ready"}
    store.close()
    assert peaks[1] - peaks[0] < PER_UNIT * (MANY - FEW)
