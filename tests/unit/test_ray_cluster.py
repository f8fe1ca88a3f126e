"""`ray_cluster.yaml` is what Ray's own launcher accepts; a broken copy is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "ray_cluster.yaml"


def validate(config: dict[str, Any]) -> None:
    # Private to Ray: the one place that depends on it.
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_accepts_it() -> None:
    validate(yaml.safe_load(CLUSTER.read_text()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_refuses_a_broken_copy() -> None:
    config = yaml.safe_load(CLUSTER.read_text())
    config["setup_comands"] = config.pop("setup_commands")
    with pytest.raises(Exception, match="setup_comands"):
        validate(config)
