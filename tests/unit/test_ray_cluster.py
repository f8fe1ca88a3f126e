from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
CLUSTER = PROJECT / "ray_cluster.yaml"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text())


def validate(config: dict[str, Any]) -> None:
    # Private to Ray: the one place that depends on it.
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate(config)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("setup_comands",), ["true"], "setup_comands"),
        (("provider", "worker_ips"), "192.0.2.11", "array"),
        (("head_start_ray_commands",), "ray start --head", "array"),
    ],
)
def test_ray_refuses_a_broken_copy(config: dict[str, Any], path: tuple[str, ...], value: object, said: str) -> None:
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(Exception, match=said):
        validate(config)


def test_as_many_workers_are_started_as_are_named(config: dict[str, Any]) -> None:
    assert config["min_workers"] == config["max_workers"] == len(config["provider"]["worker_ips"])


def test_nothing_ends_another_ray_of_a_host(config: dict[str, Any]) -> None:
    started = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert not [line for line in started if "ray stop" in line]  # Ray's own default has it
    assert all("RAY_AUTH_MODE=disabled" in line for line in started)  # or head and workers decide differently


def test_what_is_copied_to_the_nodes_is_of_this_project(config: dict[str, Any]) -> None:
    extras = config["setup_commands"][1].partition("[")[2].partition("]")[0].split(",")
    declared = (PROJECT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in declared for extra in extras)
    assert set(config["file_mounts"].values()) == {"dist/"}
    assert (PROJECT / "constraints.txt").is_file()
    assert "cp constraints.txt dist/" in CLUSTER.read_text()
