"""Ready sweeps are read, and their encoders and routers resolved, whatever data are on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.fetching import find_suite
from orchestrator.sweep import Sweep
from workers.benchmarks.pools import find_pool
from workers.encoders.base import make_encoder
from workers.routers.base import resolve_params, router_class

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_ready_sweep_names_what_exists(path: Path) -> None:
    sweep = Sweep.from_yaml(path)
    assert sweep.name == path.stem
    for entry in sweep.benchmarks:
        if entry.fetch is not None:
            assert find_suite(entry.fetch).name == entry.fetch
        if entry.pool is not None:
            assert find_pool(entry.pool).name == entry.pool
    for encoder in sweep.encoders:
        make_encoder(encoder.target, encoder.params)
    for router in sweep.routers:
        cls = router_class(router.target)
        resolve_params(cls, router.params)
        assert set(cls.formulations) & set(sweep.formulation), router.name
