"""A local Ray that is slow to start is tried once more, and only for that reason."""

import pytest

from orchestrator import cluster
from orchestrator.errors import RunError

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


@pytest.mark.parametrize(
    ("said", "tried"),
    [([SLOW], 2), ([SLOW, SLOW], 2), (["no room in /dev/shm"], 1)],
    ids=["slow once", "slow twice", "another reason"],
)
def test_a_local_ray_that_is_slow_to_start_is_tried_once_more(said, tried, monkeypatch):
    ray = pytest.importorskip("ray")
    calls = []

    def init(**options):
        calls.append(options)
        if len(calls) <= len(said):
            raise Exception(said[len(calls) - 1])

    monkeypatch.setattr(ray, "init", init)
    if tried > len(said):
        assert cluster.connect(None, workers=2)
    else:
        with pytest.raises(RunError, match=said[-1][:20]):
            cluster.connect(None, workers=2)
    assert [options["num_cpus"] for options in calls] == [2] * tried
