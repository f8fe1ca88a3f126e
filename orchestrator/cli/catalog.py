"""Verbs about what there is: encoders, routers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import AsJson, Database, Embed, Score, SweepName

if TYPE_CHECKING:
    from workers.routers.base import Router

encoders = typer.Typer(help="List encoders.", no_args_is_help=True)
routers = typer.Typer(help="List, check and export routers.", no_args_is_help=True)


@encoders.command("list")
def list_encoders(as_json: AsJson = False) -> None:
    """List encoders and whether they are installed."""
    import inspect

    from orchestrator.cli.output import print_rows
    from workers.encoders.base import Encoder
    from workers.encoders.base import encoders as known
    from workers.encoders.presets import PRESETS
    from workers.errors import EncoderError

    def installed(cls: type[Encoder]) -> str:
        parameters = inspect.signature(cls).parameters
        required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
        if required:
            return f"needs {', '.join(required)}"
        if "model" in parameters:  # looking it up might download it
            return f"needs {parameters['model'].default} of the hub, or `model:` a folder"
        try:
            return "yes" if cls().recipe() else "no"
        except EncoderError as error:
            return f"no: {error}"

    def row(name: str, cls: type[Encoder], installed: str, summary: str) -> dict[str, str]:
        modality = cls.modality if isinstance(cls.modality, str) else cls().modality  # of a fitted one, its base's
        return {
            "name": name,
            "modality": modality,
            "version": cls.version,
            "fitted on": "nothing" if cls.standalone else "training side",
            "installed": installed,
            "summary": summary,
        }

    classes = known()
    rows = [row(name, cls, installed(cls), cls.summary) for name, cls in classes.items()]
    for name, preset in PRESETS.items():
        needs = f"needs {preset.params['model']} of the hub, or `model:` a folder"
        rows.append(row(name, classes[preset.use], needs, preset.summary))
    print_rows(rows, as_json=as_json)


@routers.command("list")
def list_routers(as_json: AsJson = False) -> None:
    """List routers with source, formulations, needs and tunables."""
    from orchestrator.cli.output import print_rows
    from workers.routers.base import Router
    from workers.routers.base import routers as known

    rows = []
    for name, cls in known().items():
        flags = [flag for flag in ("online", "privileged", "query_blind") if getattr(cls, flag)]
        flags += [name for name in ("partial_fit", "add_model") if getattr(cls, name) is not getattr(Router, name)]
        rows.append(
            {
                "name": name,
                "formulation": ", ".join(cls.formulations),
                "needs": ", ".join((*(("embedding",) if cls.needs_embedding else ()), *_needs(cls))) or None,
                "tunables": ", ".join(cls.tunables) or None,
                "flags": ", ".join(flags) or None,
                "version": cls.version,
                "summary": cls.summary,
                "source": cls.source or None,
            }
        )
    if not as_json:
        shown = ("name", "formulation", "needs", "tunables", "flags", "source", "summary")
        rows = [{key: row[key] for key in shown} for row in rows]
    print_rows(rows, as_json=as_json)


def _needs(cls: type[Router]) -> list[str]:
    """What its default parameters need, and in brackets what it reads where it is there."""
    return [*cls().requirements(), *(f"[{name}]" for name in cls.uses)]


Params = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Parameter, YAML; may be given several times.")
]


def _params(given: list[str] | None) -> dict[str, Any]:
    import yaml

    from orchestrator.errors import SweepError

    found = {}
    for item in given or []:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise SweepError(f"--param {item!r}: write NAME=VALUE, such as k=10.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SweepError(f"--param {item!r}: {value!r} is no YAML value.") from error
    return found


@routers.command("check")
def check_router(
    router: Annotated[str, typer.Argument(help="Registered name, or `module:Class`.")],
    param: Params = None,
    as_json: AsJson = False,
) -> None:
    """Check that a router keeps the contract; exit 1 when it does not."""
    import sys

    from orchestrator.cli.output import print_rows
    from workers.check import check_router, find_router

    sys.path.insert(0, "")  # `module:Class` may lie in this folder
    findings = check_router(find_router(router), _params(param))
    words = {True: "pass", False: "FAIL", None: "–"}
    print_rows(
        [{"check": f.check, "result": words[f.passed], "found": f.message or None} for f in findings], as_json=as_json
    )
    if any(finding.passed is False for finding in findings):
        raise typer.Exit(1)


@routers.command("grow")
def grow_router(
    router: Annotated[str, typer.Argument(help="Registered name, or `module:Class`.")],
    benchmark: Annotated[str, typer.Option(help="Embedded or imported benchmark, or a path.")],
    encoder: Annotated[str, typer.Option(help="Encoder.")] = "minilm",
    queries: Annotated[
        float | None, typer.Option(help="Add labelled queries: fraction of the training side that is there at first.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Add a model: the one that comes later.")] = None,
    labelled: Annotated[int, typer.Option(help="With --model: training queries that it is tried on.")] = 50,
    splits: Annotated[int, typer.Option(min=1, help="Number of splits.")] = 5,
    param: Params = None,
    db: Database = None,
    embed: Embed = "prompt",
    score: Score = None,
    as_json: AsJson = False,
) -> None:
    """Add queries or a model to a fitted router; measure quality and time against fitting anew."""
    from dataclasses import asdict

    from orchestrator.catalog import load_source
    from orchestrator.cli.output import print_rows
    from orchestrator.errors import SweepError
    from orchestrator.store import home_folder
    from orchestrator.sweep import BenchmarkEntry
    from workers.check import find_router
    from workers.embed import check_inputs, encode_inputs, unique_inputs
    from workers.encoders.base import make_encoder
    from workers.growth import more_queries, one_more_model

    if (queries is None) == (model is None):
        raise SweepError("give --queries FRACTION or --model NAME.")
    cls, params = find_router(router), _params(param)
    path = benchmark if "/" in benchmark or Path(benchmark).exists() else None
    entry = BenchmarkEntry(name=Path(benchmark).name if path else benchmark, path=path, embed=embed, score=score)
    source = load_source(entry, home=home_folder(db), beside=Path())
    embedding = None
    if cls.needs_embedding:
        made = make_encoder(encoder)
        inputs = unique_inputs(source, made.modality)
        check_inputs(made, inputs)
        embedding = encode_inputs(made, inputs.inputs)[inputs.row_of_query]
    rows = []
    for split in range(splits):
        if queries is not None:
            rows += more_queries(cls, params, source, embedding, split=split, start=queries)
        else:
            assert model is not None
            rows += one_more_model(cls, params, source, embedding, split=split, model=model, labelled=labelled)
    if as_json:
        print_rows([asdict(row) for row in rows], as_json=True)
        return
    ways = list(dict.fromkeys(row.way for row in rows))
    means = []
    for way in ways:
        each = [row for row in rows if row.way == way]
        means.append(
            {
                "way": way,
                "auc_path": sum(row.auc_path for row in each) / len(each),
                "seconds": sum(row.seconds for row in each) / len(each),
                "queries": each[0].n_queries,
                "labelled": each[0].n_labelled,
                "splits": len(each),
            }
        )
    print_rows(means, as_json=False)


@routers.command("export")
def export_router(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="[UNIT] DIR", help="Key of a unit (or how it begins), and the folder to write."),
    ],
    best: Annotated[
        bool, typer.Option("--best", help="The router with the highest mean auc_path, not a unit.")
    ] = False,
    db: Database = None,
    sweep: SweepName = None,
    benchmark: Annotated[str | None, typer.Option(help="With --best: of this benchmark.")] = None,
    encoder: Annotated[str | None, typer.Option(help="With --best: of this encoder.")] = None,
    train_only: Annotated[
        bool, typer.Option("--train-only", help="Fit on the unit's training side, as measured; default: all queries.")
    ] = False,
) -> None:
    """Fit a router with the parameters of a result and write it: safetensors and JSON."""
    from orchestrator.deploy import best_unit, export_unit, find_unit
    from orchestrator.errors import SweepError
    from orchestrator.store import open_store, reading

    if len(arguments) != (1 if best else 2):
        raise SweepError("give UNIT and DIR, or --best and DIR.")
    store = open_store(db, create=False)
    try:
        with store.read() as session:
            if best:
                name = reading.find_sweep(session, sweep)
                key = best_unit(session, name, benchmark=benchmark, encoder=encoder)["unit_key"]
            else:
                key, name = find_unit(session, arguments[0])
        deployed = export_unit(store, key, name, Path(arguments[-1]), train_only=train_only)
    finally:
        store.close()
    source = deployed.provenance
    typer.echo(f"{source['router']} on {source['benchmark']}, fitted on {source['fitted_on']}: {arguments[-1]}")


def route(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT...", help="What to route.")],
    router: Annotated[Path, typer.Option(metavar="DIR", help="Folder that `routers export` wrote.")],
    preference: Annotated[str | None, typer.Option(help="low-cost, balanced (default) or high-performance.")] = None,
    price: Annotated[float | None, typer.Option(help="A price of cost instead of a preference.")] = None,
    task: Annotated[str | None, typer.Option(help="Task of the prompts, for routers that read it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Route prompts: the model to call, what is expected of each, and how sure that is."""
    from dataclasses import asdict

    from orchestrator.cli.output import print_json, print_rows
    from workers.deployed import Deployed

    routes = Deployed.load(router).route(prompts, preference=preference, price=price, task=task)
    if as_json:
        print_json([{"prompt": prompt, **asdict(found)} for prompt, found in zip(prompts, routes, strict=True)])
        return
    for prompt, found in zip(prompts, routes, strict=True):
        rows: list[dict[str, object]] = []
        for model in found.scores or found.chances or {}:
            row: dict[str, object] = {"model": ("→ " if model == found.model else "  ") + model}
            if found.scores is not None and found.costs is not None:
                row |= {"score": found.scores[model], "cost (USD)": found.costs[model]}
            if found.chances is not None:
                row |= {"chance": found.chances[model]}
            rows.append(row)
        typer.echo(f"{found.model}  (price of cost {found.price:g})")
        if rows:
            print_rows(rows, as_json=False, title=prompt)
        if found.distance is not None:
            typer.echo(
                f"neighbours: {found.disagreement:.0%} of their votes go to other models than the most voted; the "
                f"last is at {found.distance:.3f}, farther than that of {found.farther_than:.0%} of labelled queries"
            )
