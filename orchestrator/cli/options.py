"""Which options do several verbs share?"""

from __future__ import annotations

from typing import Annotated

import typer

Database = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Database; default ROADTEST_DB, else sqlite:///roadtest.db."),
]
SweepName = Annotated[str | None, typer.Option("--sweep", metavar="NAME", help="Sweep; default the last one run.")]
Embed = Annotated[str, typer.Option(help="Column or field of the questions that encoders see.")]
Score = Annotated[
    str | None, typer.Option(help="Column, metric or scorer that holds the score; default `score`, of logs the first.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Logging:
    """What `--log-level` and `--log-format` were."""

    format = "text"
