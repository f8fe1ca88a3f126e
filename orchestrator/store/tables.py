"""Which tables are there? The schema's public face is the views.

Times are seconds since 1970 in UTC, taken from the database's clock. JSON travels as text, the same on both databases.
What a row and a column hold is said here (`info["row"]`, `doc`), and shown by docs/schema.md.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: SQLite counts rowids only for a plain INTEGER primary key.
BigId = BigInteger().with_variant(Integer, "sqlite")

#: `Column.info` of the columns that people's queries may rely on, as on the views; the others may change.
JOIN = {"join": True}


def _id(*, join: bool = False) -> Column[int]:
    return Column("id", BigId, primary_key=True, autoincrement=True, doc="Row id.", info=JOIN if join else {})


def _ref(name: str, *, nullable: bool = False, primary_key: bool = False, join: bool = False) -> Column[int]:
    target = name.removesuffix("_id")
    return Column(
        name,
        BigId,
        ForeignKey(f"{target}.id"),
        nullable=nullable and not primary_key,
        primary_key=primary_key,
        doc=f"`{target}.id`.",
        info=JOIN if join else {},
    )


benchmark = Table(
    "benchmark",
    metadata,
    _id(join=True),
    Column("name", Text, nullable=False, doc="Name of the source; sweeps may show another.", info=JOIN),
    Column("fingerprint", String(64), nullable=False, unique=True, doc="sha256 of the whole content."),
    Column("suite", Text, nullable=False, doc="Benchmarks that share prompts are one suite."),
    Column("embedded", Text, nullable=False, doc="Column of the questions that encoders see."),
    Column("c_ref", Double, nullable=False, doc="Cost 1 in USD: the largest mean cost of a model.", info=JOIN),
    Column("n_queries", Integer, nullable=False, doc="Number of queries.", info=JOIN),
    Column("n_models", Integer, nullable=False, doc="Number of candidate models.", info=JOIN),
    Column("groups_digest", String(64), nullable=False, doc="Digest of the source's group names, which splits order."),
    Column("meta", Text, nullable=False, doc="JSON: licence, source, caveats."),
    Column("created_at", Double, nullable=False, doc="When it was stored."),
    Column("trained_on", Text, doc="Task of the training side, in a study of shift."),
    info={"row": "evaluated benchmark, by content"},
)

model = Table(
    "model",
    metadata,
    _id(join=True),
    _ref("benchmark_id", join=True),
    Column("position", Integer, nullable=False, doc="Place in the canonical order, by name."),
    Column(
        "code",
        String(2),
        nullable=False,
        doc="Two base-36 digits of the position: what `decision.models` is made of.",
    ),
    Column("name", Text, nullable=False, doc="As the data spell it.", info=JOIN),
    Column("family", Text, doc="Provider or family."),
    Column("price_in", Double, doc="USD per 1M input tokens, where known."),
    Column("price_out", Double, doc="USD per 1M output tokens, where known."),
    UniqueConstraint("benchmark_id", "name"),
    UniqueConstraint("benchmark_id", "code"),
    info={"row": "candidate model of a benchmark"},
)

query = Table(
    "query",
    metadata,
    _id(join=True),
    _ref("benchmark_id", join=True),
    Column("position", Integer, nullable=False, doc="Place in the canonical order, by key."),
    Column("key", Text, nullable=False, doc="`query_id` of the data.", info=JOIN),
    Column("task", Text, nullable=False, doc="Task of the data, '' where there is none.", info=JOIN),
    Column("group_key", Text, nullable=False, doc="Group of the query: it is never cut by a split."),
    UniqueConstraint("benchmark_id", "key"),
    info={"row": "query of a benchmark (never its text)"},
)

outcome = Table(
    "outcome",
    metadata,
    _ref("query_id", primary_key=True, join=True),
    _ref("model_id", primary_key=True, join=True),
    Column("score", Double, nullable=False, doc="Observed score, 0 to 1.", info=JOIN),
    Column("cost", Double, nullable=False, doc="Observed cost in USD.", info=JOIN),
    sqlite_with_rowid=False,
    info={"row": "observed query × model; what was not observed has no row"},
)

# Test sides are shared by every unit of a benchmark and split index, so decisions need not repeat them.
split = Table(
    "split",
    metadata,
    _id(),
    _ref("benchmark_id"),
    Column("root_seed", BigInteger, nullable=False, doc="`root_seed` of the sweep."),
    Column("seed", Integer, nullable=False, doc="Split index."),
    Column(
        "n_dropped",
        Integer,
        nullable=False,
        doc="Validation and test queries left out because a model is not observed.",
    ),
    UniqueConstraint("benchmark_id", "root_seed", "seed"),
    info={"row": "split of a benchmark"},
)

test_query = Table(
    "test_query",
    metadata,
    _ref("split_id", primary_key=True, join=True),
    Column("position", Integer, primary_key=True, doc="Place in the canonical order of the test side."),
    _ref("query_id", join=True),
    sqlite_with_rowid=False,
    info={"row": "complete query of a split's test side"},
)

encoder = Table(
    "encoder",
    metadata,
    _id(),
    Column("name", Text, nullable=False, doc="Registered name."),
    Column("recipe_digest", String(64), nullable=False, unique=True, doc="sha256 of the recipe."),
    Column("recipe", Text, nullable=False, doc="JSON: all that decides its rows."),
    Column("created_at", Double, nullable=False, doc="When it was stored."),
    info={"row": "encoder with its recipe"},
)

environment = Table(
    "environment",
    metadata,
    _id(),
    Column("digest", String(64), nullable=False, unique=True, doc="sha256 of the facts."),
    Column("facts", Text, nullable=False, doc="JSON: machine and versions."),
    Column("created_at", Double, nullable=False, doc="When it was stored."),
    info={"row": "machine and set of versions that computed results"},
)

sweep = Table(
    "sweep",
    metadata,
    _id(join=True),
    Column("name", Text, nullable=False, unique=True, doc="`name` of the sweep file.", info=JOIN),
    Column("spec", Text, nullable=False, doc="JSON: the sweep file, defaults filled in."),
    Column("reference", Text, doc="Router that verdicts compare with."),
    Column("margin", Double, nullable=False, doc="Margin of equivalence in AUC points."),
    Column("created_at", Double, nullable=False, doc="When it was first run."),
    Column("updated_at", Double, nullable=False, doc="When it was last run."),
    Column(
        "plan_digest",
        String(64),
        doc="Digest of every unit's key and names in order: what `sweep_unit` holds; "
        "begins with ~ while that is being written.",
    ),
    info={"row": "sweep"},
)

coordinator = Table(
    "coordinator",
    metadata,
    Column("id", String(36), primary_key=True, doc="uuid."),
    _ref("sweep_id"),
    Column("host", Text, nullable=False, doc="Where it ran."),
    # With pid and start time it tells for sure whether a coordinator of this host lives.
    Column("boot", Text, nullable=False, doc="Boot id of the host, which changes at a reboot."),
    Column("pid", Integer, nullable=False, doc="Process id."),
    Column("process_started", Double, nullable=False, doc="When the process started, by its host's clock."),
    Column("started_at", Double, nullable=False, doc="When it began to work."),
    Column("ended_at", Double, doc="When it ended by itself."),
    Column("exit_code", Integer, doc="Exit code of the run."),
    info={"row": "run of a sweep: the process that hands out its units"},
)

unit = Table(
    "unit",
    metadata,
    _id(join=True),
    Column("key", String(80), nullable=False, unique=True, doc="Content key: scheme and sha256 of `spec`.", info=JOIN),
    Column("kind", String(16), nullable=False, doc="`embed`, `evaluate` or `measure`.", info=JOIN),
    Column("spec", Text, nullable=False, doc="JSON: all that may change the result."),
    Column(
        "config",
        String(64),
        nullable=False,
        doc="Digest of the specification without the split: what a leaderboard row averages over.",
    ),
    _ref("benchmark_id", nullable=True, join=True),
    _ref("encoder_id", nullable=True),
    Column(
        "embedding",
        String(64),
        doc="Digest of recipe and inputs: joins an evaluate unit to the embed units it waits for.",
    ),
    Column("router", Text, doc="Registered name of the router, whatever a sweep calls it.", info=JOIN),
    Column("params", Text, doc="JSON: fixed parameters, defaults resolved."),
    Column(
        "twin",
        Boolean(name="twin_is_boolean"),
        nullable=False,
        default=False,
        doc="Whether it is a blind twin.",
        info=JOIN,
    ),
    Column(
        "privileged",
        Boolean(name="privileged_is_boolean"),
        nullable=False,
        default=False,
        doc="Whether the router sees test outcomes.",
        info=JOIN,
    ),
    Column(
        "query_blind",
        Boolean(name="query_blind_is_boolean"),
        nullable=False,
        default=False,
        doc="Whether the router treats all queries alike.",
    ),
    Column("router_source", String(64), doc="sha256 of the file that defined the router when the unit was planned."),
    Column("formulation", String(16), doc="`utility` or `selection`."),
    Column("seed", Integer, doc="Split index."),
    Column("root_seed", BigInteger, doc="`root_seed` of the sweep."),
    Column("train_size", Double, doc="Fraction of the training side, 0 to 1."),
    _ref("split_id", nullable=True, join=True),
    Column(
        "state",
        String(16),
        nullable=False,
        doc="`ready`, `running`, `done`, `failed`, `quarantined`, `skipped` or `invalidated`.",
        info=JOIN,
    ),
    Column("reason", Text, doc="Why it is skipped, invalidated or failed.", info=JOIN),
    # Attempts since the unit last became ready by a person's hand; what retries are bounded by.
    Column("n_failures", Integer, nullable=False, default=0, doc="Exceptions since it last succeeded or was retried."),
    Column("n_deaths", Integer, nullable=False, default=0, doc="Workers that it took down since."),
    Column("n_ooms", Integer, nullable=False, server_default="0", doc="Attempts that ran out of memory since."),
    Column(
        "epoch",
        Integer,
        nullable=False,
        default=0,
        doc="Counts claims, so that a late write of an earlier one is known.",
    ),
    Column("coordinator_id", String(36), ForeignKey("coordinator.id"), doc="`coordinator.id` that claimed it last."),
    Column("claimed_at", Double, doc="When that was."),
    Column("lease_expires", Double, doc="Until when the claim holds."),
    # The result.
    Column("n_train", Integer, doc="Queries on the training side."),
    Column("n_validation", Integer, doc="Complete queries on the validation side."),
    Column("n_test", Integer, doc="Complete queries on the test side."),
    Column("chosen", Text, doc="JSON: tuned parameters."),
    Column("embedding_sha256", String(64), doc="Content of the embedding that it read or wrote."),
    Column("bootstrap", LargeBinary, doc="`auc_path` on each resample of the test groups, little-endian doubles."),
    Column("tuning_seconds", Double, doc="Seconds spent on choosing parameters; an observation."),
    Column("seconds", Double, doc="Seconds that it took in all; an observation.", info=JOIN),
    Column("result_digest", String(64), doc="Digest of every deterministic column of the result."),
    _ref("environment_id", nullable=True),
    Column("finished_at", Double, doc="When its result was committed."),
    Column("measure", Text, doc="Registered name of a study's measure."),
    CheckConstraint(
        "state IN ('ready', 'running', 'done', 'failed', 'quarantined', 'skipped', 'invalidated')",
        name="state_is_known",
    ),
    CheckConstraint("kind IN ('embed', 'evaluate', 'measure')", name="kind_is_known"),
    Index(None, "state", "kind", "id"),
    Index(None, "embedding", "kind", "state"),
    info={"row": "unit of work, by content, with its state and the result's single values"},
)

sweep_unit = Table(
    "sweep_unit",
    metadata,
    _ref("sweep_id", primary_key=True, join=True),
    Column("position", Integer, primary_key=True, doc="Place in the sweep's plan."),
    _ref("unit_id", join=True),
    Column("benchmark", Text, doc="Display name of the benchmark in this sweep.", info=JOIN),
    Column("task", Text, doc="Task that the benchmark was cut down to."),
    Column("encoder", Text, doc="Display name of the encoder in this sweep, NULL without one.", info=JOIN),
    Column("router", Text, doc="Display name of the router in this sweep.", info=JOIN),
    Column("twin_of", Text, doc="Display name of the router whose blind twin it is."),
    Index(None, "unit_id"),
    sqlite_with_rowid=False,
    info={"row": "unit that a sweep wants; several may want one"},
)

artifact = Table(
    "artifact",
    metadata,
    _id(),
    _ref("unit_id"),
    Column("embedding", String(64), nullable=False, doc="Digest of recipe and inputs."),
    Column("start", Integer, nullable=False, doc="First unique input."),
    Column("stop", Integer, nullable=False, doc="One past the last."),
    Column("url", Text, nullable=False, doc="Where the file is, under the artefact store."),
    Column("sha256", String(64), nullable=False, doc="Of the rows' bytes."),
    Column("n_rows", Integer, nullable=False, doc="Rows."),
    Column("dim", Integer, nullable=False, doc="Numbers per row."),
    Column("n_bytes", BigInteger, nullable=False, doc="Size of the file."),
    Column("created_at", Double, nullable=False, doc="When it was recorded."),
    UniqueConstraint("embedding", "start"),
    Index(None, "unit_id"),
    info={"row": "file with a slice of an embedding"},
)

attempt = Table(
    "attempt",
    metadata,
    _id(),
    _ref("unit_id"),
    Column("epoch", Integer, nullable=False, doc="Claim that it belongs to."),
    Column("coordinator_id", String(36), ForeignKey("coordinator.id"), nullable=False, doc="`coordinator.id`."),
    Column("worker", Text, doc="uuid minted by the worker process; NULL when the claim never reached one."),
    Column("host", Text, doc="Host of the worker."),
    Column("pid", Integer, doc="Process id of the worker."),
    Column(
        "outcome",
        String(16),
        nullable=False,
        doc="`done`, `failed`, `lost` (its coordinator died), `released` (handed back) or `late` (the claim was no "
        "longer held).",
    ),
    Column(
        "error_kind",
        String(32),
        doc="`user_error`, `exception`, `out_of_memory`, `artifact`, `worker_death` or `timeout`.",
    ),
    Column("message", Text, doc="What the error said."),
    Column("traceback", Text, doc="Where it was raised."),
    Column("started_at", Double, doc="When the worker began, by its clock."),
    Column("finished_at", Double, nullable=False, doc="When the end was recorded."),
    Column("seconds", Double, doc="Seconds that it took; an observation."),
    Index(None, "unit_id"),
    info={"row": "attempt at a unit"},
)

metric = Table(
    "metric",
    metadata,
    _ref("unit_id", primary_key=True, join=True),
    Column("name", Text, primary_key=True, doc="Name of the metric, of docs/metrics.md.", info=JOIN),
    Column("value", Double, doc="Its value, NULL where undefined.", info=JOIN),
    sqlite_with_rowid=False,
    info={"row": "metric of an evaluated unit; a model that gets no query has no share"},
)

frontier_point = Table(
    "frontier_point",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("position", Integer, primary_key=True, doc="Place along the path, by ascending price of cost."),
    Column("cost", Double, nullable=False, doc="Mean cost of a test query in units of cost 1."),
    Column("score", Double, nullable=False, doc="Mean score of a test query, 0 to 1."),
    Column("price_of_cost", Double, doc="Least λ at which it holds; NULL for a router without one."),
    Column(
        "on_hull",
        Boolean(name="on_hull_is_boolean"),
        nullable=False,
        doc="Whether it is a vertex of the hull of `auc`.",
    ),
    sqlite_with_rowid=False,
    info={"row": "stored operating point of an evaluated unit: hull vertices and at most 64 others"},
)

decision = Table(
    "decision",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("preference", String(32), primary_key=True, doc="`low-cost`, `balanced` or `high-performance`."),
    Column(
        "models",
        Text,
        nullable=False,
        doc="`model.code` of the chosen model for every test query in canonical order, run together.",
    ),
    sqlite_with_rowid=False,
    info={"row": "unit × preference; the view `decisions` spells it out"},
)

finding = Table(
    "finding",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("position", Integer, primary_key=True, doc="Place among the unit's findings."),
    Column("quantity", Text, nullable=False, doc="What was measured."),
    Column("label", Text, nullable=False, doc="What it is of, where a quantity has several."),
    Column("x", Double, doc="Where on a curve."),
    Column("value", Double, doc="What was found, NULL where undefined."),
    Column("low", Double, doc="Lower end of a band about it, such as that of its null."),
    Column("high", Double, doc="Upper end of that band."),
    sqlite_with_rowid=False,
    info={"row": "number that a measure of a study found"},
)

event = Table(
    "event",
    metadata,
    _id(),
    Column("at", Double, nullable=False, doc="When."),
    Column(
        "kind",
        String(32),
        nullable=False,
        doc="`divergence`, `invalidated`, `artifact_lost`, `reclaimed`, `taken_over`, `source_changed` or "
        "`sweep_changed`.",
    ),
    Column("coordinator_id", String(36), doc="`coordinator.id` that noticed it."),
    _ref("unit_id", nullable=True),
    Column("message", Text, nullable=False, doc="What happened, in words."),
    Column("detail", Text, doc="JSON: more of it."),
    Index(None, "unit_id"),
    info={"row": "thing that happened and is worth knowing later"},
)
