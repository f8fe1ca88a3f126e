"""Which verbs are there? The application."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from orchestrator.cli import benchmarks, catalog, database, doctor, jobs, options, read, run, units

app = typer.Typer(
    name="roadtest",
    help="Find out, with evidence that stands up, which LLM router to use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="Least level on stderr.")
    ] = "warning",
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Format of log lines.")] = "text",
) -> None:
    from orchestrator.cli.output import set_up_logging

    options.Logging.format = log_format
    set_up_logging(log_level, log_format)


for _module in (run, jobs, read, units):
    _module.add_to(app)
app.add_typer(benchmarks.app, name="benchmarks")
app.add_typer(catalog.encoders, name="encoders")
app.add_typer(catalog.routers, name="routers")
app.command()(catalog.route)
app.add_typer(database.app, name="db")
doctor.add_to(app)
