"""From a result to a router that routes prompts, and what keeping it up to date costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roadtest import Deployed
from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.routers.base import Prediction

ROUTERS = [
    {"name": "knn@5", "use": "knn", "k": 5, "twin": True},
    {"name": "mlp", "use": "mlp", "epochs": 1},
    "linear",
    "zero-router",
    "random",
    "oracle",
]


@pytest.fixture
def ran(cli: Any, tiny: Path, write_sweep: Callable[..., Path]) -> Path:
    path = write_sweep(routers=ROUTERS, formulation=["utility", "selection"], protocol={"tuning_budget": 2})
    ended = cli("run", path, "--executor", "local", "--no-report")
    assert ended.code == 0, ended.err
    return path


def shown(cli: Any, *arguments: object) -> Any:
    ended = cli(*arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def unit(cli: Any, router: str, formulation: str = "utility", seed: int = 0) -> str:
    (row,) = shown(
        cli,
        "sql",
        f"SELECT unit_key FROM results WHERE router = '{router}' AND formulation = '{formulation}' AND seed = {seed}",
    )
    return str(row["unit_key"])


@pytest.mark.parametrize("router", ["knn@5", "mlp", "linear", "zero-router"])
def test_an_exported_unit_decides_as_it_was_measured(cli: Any, ran: Path, router: str) -> None:
    key = unit(cli, router)
    assert cli("routers", "export", key[:20], "kept", "--train-only").code == 0
    measured = shown(
        cli,
        "sql",
        f"SELECT preference, query_key, model FROM decisions WHERE unit_key = '{key}'",
    )
    prompts = {row["query_id"]: row["question"] for row in questions(ran)}
    deployed = Deployed.load(Path("kept"))
    assert deployed.provenance["unit"] == key
    for preference in ("low-cost", "balanced", "high-performance"):
        rows = [row for row in measured if row["preference"] == preference]
        routes = deployed.route([prompts[row["query_key"]] for row in rows], preference=preference)
        assert [route.model for route in routes] == [row["model"] for row in rows]


@pytest.mark.parametrize(
    "encoder",
    [
        {"name": "words", "use": "tfidf-svd", "dim": 8},
        {"name": "bent", "use": "fine-tuned", "of": {"name": "hash-ngrams", "dim": 32}, "dim": 4, "epochs": 2},
    ],
    ids=["texts", "rows"],
)
def test_an_export_carries_the_encoder_that_was_fitted_with_it(
    encoder: dict[str, Any], cli: Any, tiny: Path, write_sweep: Callable[..., Path]
) -> None:
    sweep = write_sweep(encoders=[encoder], routers=[{"name": "knn@5", "use": "knn", "k": 5, "twin": True}])
    ended = cli("run", sweep, "--executor", "local", "--no-report")
    assert ended.code == 0, ended.err
    key = unit(cli, "knn@5")
    assert cli("routers", "export", key[:20], "kept", "--train-only").code == 0
    rows = shown(cli, "sql", f"SELECT preference, query_key, model FROM decisions WHERE unit_key = '{key}'")
    prompts = {row["query_id"]: row["question"] for row in questions(sweep)}
    deployed = Deployed.load(Path("kept"))
    for preference in ("low-cost", "balanced", "high-performance"):
        chosen = [row for row in rows if row["preference"] == preference]
        routes = deployed.route([prompts[row["query_key"]] for row in chosen], preference=preference)
        assert [route.model for route in routes] == [row["model"] for row in chosen]


def questions(sweep: Path) -> list[dict[str, str]]:
    import csv

    import yaml

    (entry,) = yaml.safe_load(sweep.read_text())["benchmarks"]
    folder = next(p for p in (sweep.parent / entry["path"], Path(entry["path"])) if p.exists())
    column = entry.get("embed", "prompt")
    with (folder / "queries.csv").open(newline="") as file:
        return [{"query_id": row["query_id"], "question": row[column]} for row in csv.DictReader(file)]


def test_the_best_router_is_exported_and_routes(cli: Any, ran: Path) -> None:
    best = shown(
        cli,
        "sql",
        "SELECT router, auc_path_mean FROM leaderboard WHERE formulation = 'utility' AND router NOT LIKE '%twin' "
        "AND router <> 'oracle' ORDER BY auc_path_mean DESC",
    )
    first = [row["router"] for row in best if row["auc_path_mean"] > best[0]["auc_path_mean"] - 1e-9]
    ended = cli("routers", "export", "--best", "winner")
    assert ended.code == 0 and ended.out.split(" on ")[0] in first
    assert not [path for path in Path("winner").rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".joblib")]
    ended = cli("route", "--router", "winner", "red one two", "--preference", "low-cost")
    assert ended.code == 0 and "price of cost 1" in ended.out and "→" in ended.out
    (found,) = shown(cli, "route", "--router", "winner", "red one two", "--price", 0)
    deployed = Deployed.load(Path("winner"))
    (again,) = deployed.route(["red one two"], price=0.0)
    assert found["model"] == again.model == max(found["scores"], key=found["scores"].get)


def test_a_selector_is_exported_with_one_router_for_each_preference(cli: Any, ran: Path) -> None:
    assert cli("routers", "export", unit(cli, "knn@5", "selection"), "selector").code == 0
    (found,) = shown(cli, "route", "--router", "selector", "red", "--preference", "balanced")
    assert found["scores"] is None and found["model"] in ("large", "medium", "small")
    refused = cli("route", "--router", "selector", "red", "--price", 0.3)
    assert refused.code == 2 and "name a preference" in refused.err


def test_a_router_that_draws_names_its_chances(cli: Any, ran: Path) -> None:
    assert cli("routers", "export", unit(cli, "random"), "drawn").code == 0
    deployed = Deployed.load(Path("drawn"))
    routes = deployed.route(["a"] * 300, seed=1)
    assert routes[0].chances == pytest.approx(dict.fromkeys(("large", "medium", "small"), 1 / 3))
    assert {route.model for route in routes} == {"large", "medium", "small"}
    assert routes[0].distance is None


def test_confidence_diagnostics_by_hand() -> None:
    """Four labelled queries on the axes: the nearest ten are all of them."""
    from workers.benchmarks.base import Model
    from workers.routers.base import Side
    from workers.routers.baselines import ZeroRouter

    X = np.eye(4, dtype=np.float32)
    scores = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    costs = np.full((4, 2), 0.5)
    models = (Model(name="a"), Model(name="b"))
    side = Side(
        rows=np.arange(4), matrix=X, embedding_rows=np.arange(4), tasks=("",) * 4, groups=np.arange(4),
        models=models, scores=scores, costs=costs,
    )  # fmt: skip
    deployed = Deployed(
        routers={"router": ZeroRouter().fit(side, np.random.default_rng(0))},
        models=models, c_ref=1.0, encoder=None, recipe=None, support=X, outcomes=(scores, costs),
    )  # fmt: skip
    asked = Side(
        rows=np.arange(1), matrix=X[:1], embedding_rows=np.arange(1), tasks=("",), groups=np.arange(1), models=models
    )
    distance, farther, disagreement = deployed._diagnose(asked, 0.0)
    assert distance == pytest.approx([np.sqrt(2)])  # the farthest axis
    assert disagreement == pytest.approx([0.25])  # three of four name a
    assert farther == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nothing", "out"], "no finished evaluation"),
        (["--best", "a", "b"], "give UNIT and DIR"),
        (["one", "two", "three"], "give UNIT and DIR"),
    ],
)
def test_what_cannot_be_exported_is_said(cli: Any, ran: Path, arguments: list[str], why: str) -> None:
    ended = cli("routers", "export", *arguments)
    assert ended.code == 2 and why in ended.err and "Traceback" not in ended.err


def test_a_reference_is_not_exported_and_no_folder_is_overwritten(cli: Any, ran: Path) -> None:
    refused = cli("routers", "export", unit(cli, "oracle"), "oracle")
    assert refused.code == 2 and "reads test outcomes" in refused.err and not Path("oracle").exists()
    Path("kept").mkdir()
    (Path("kept") / "mine").write_text("mine")
    refused = cli("routers", "export", unit(cli, "knn@5"), "kept")
    assert refused.code == 2 and (Path("kept") / "mine").read_text() == "mine"


def test_route_refuses_what_it_cannot_use(cli: Any, ran: Path) -> None:
    assert cli("routers", "export", unit(cli, "knn@5"), "kept").code == 0
    for arguments, why in (
        (["--preference", "cheap"], "unknown preference"),
        (["--price", -1], "at least 0"),
        (["--preference", "balanced", "--price", 1], "not both"),
    ):
        ended = cli("route", "--router", "kept", "red", *arguments)
        assert ended.code == 2 and why in ended.err
    description = Path("kept/deployed.json")
    description.write_text(description.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(RouterError):
        Deployed.load(Path("kept"))


def test_growing_is_measured_against_fitting_anew(cli: Any) -> None:
    rows = shown(
        cli, "routers", "grow", "knn", "--param", "k=20", "--benchmark", "toolbox", "--encoder", "hash-ngrams",
        "--queries", 0.3, "--splits", 2,
    )  # fmt: skip
    by_way = {way: [row["auc_path"] for row in rows if row["way"] == way] for way in ("stale", "updated", "refit")}
    assert by_way["updated"] == pytest.approx(by_way["refit"], abs=1e-6)  # kNN forgets nothing
    assert np.mean(by_way["refit"]) > np.mean(by_way["stale"])
    rows = shown(
        cli, "routers", "grow", "knn", "--param", "k=20", "--benchmark", "toolbox", "--encoder", "hash-ngrams",
        "--model", "calculator", "--labelled", 400, "--splits", 1,
    )  # fmt: skip
    area = {row["way"]: row["auc_path"] for row in rows}
    assert area["updated"] > area["stale"] + 1
    assert area["updated"] == pytest.approx(area["refit"], abs=1e-6)
    refused = cli("routers", "grow", "zero-router", "--benchmark", "toolbox", "--queries", 0.5)
    assert refused.code == 2 and "fitted anew" in refused.err


def test_a_check_fails_with_exit_code_1(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_router.py").write_text(
        "import numpy as np\nfrom roadtest import Prediction, Router\n"
        "class Bad(Router):\n"
        "    name = 'bad'\n"
        "    def fit(self, train, rng): return None\n"
        "    def predict(self, queries):\n"
        "        n = (queries.n, len(queries.models))\n"
        "        return Prediction(scores=np.zeros(n), costs=np.zeros(n))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    ended = cli("routers", "check", "bad_router:Bad")
    assert ended.code == 1 and "FAIL" in ended.out
    assert cli("routers", "check", "knn", "--param", "k=3").code == 0
    assert cli("routers", "check", "knn", "--param", "k").code == 2


def test_predictions_are_the_routers_own(cli: Any, ran: Path) -> None:
    assert cli("routers", "export", unit(cli, "linear"), "kept").code == 0
    deployed = Deployed.load(Path("kept"))
    side = deployed._side(["red one", "two up down"], "")
    answer = deployed.routers["router"].predict(side)
    assert isinstance(answer, Prediction)
    names = [model.name for model in deployed.models]
    for i, route in enumerate(deployed.route(["red one", "two up down"], price=0.5)):
        assert list(route.scores.values()) == pytest.approx(answer.scores[i].tolist())
        assert route.model == names[choose(answer, 0.5)[i]]
