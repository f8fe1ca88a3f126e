"""What can go wrong in the orchestrator: one root, each docstring is the default message."""

from __future__ import annotations


class OrchestratorError(Exception):
    """Something went wrong in the orchestrator."""

    #: Exit code of the command line.
    exit_code = 2

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class SweepError(OrchestratorError):
    """The sweep file is not usable."""


class PlanError(OrchestratorError):
    """The sweep cannot be planned."""


class DatabaseError(OrchestratorError):
    """The database cannot be used."""


class NoDatabaseError(DatabaseError):
    """There is no roadtest database yet; `roadtest run SWEEP` makes one."""


class HomeError(OrchestratorError):
    """The folder of artefacts, imported benchmarks and logs cannot be used; set ROADTEST_HOME."""


class SchemaError(DatabaseError):
    """The database has another schema than this version of roadtest; run `roadtest db upgrade`."""


class QueryError(OrchestratorError):
    """The SQL is not a single read-only query."""


class NotFoundError(OrchestratorError):
    """There is no such sweep or unit in the database."""


class AnalysisError(OrchestratorError):
    """The results do not allow this analysis."""


class ClusterError(OrchestratorError):
    """The Ray cluster cannot be asked; check its address."""


class TransitionError(OrchestratorError):
    """A unit cannot go from its state to that one."""

    exit_code = 4


class RunError(OrchestratorError):
    """The environment failed in mid-run; what is done is kept, running the same command goes on."""

    exit_code = 4
