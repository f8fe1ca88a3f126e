"""Which tables are there? The schema's public face is the views.

Times are seconds since 1970 in UTC, taken from the database's clock. JSON travels as text, the same on both databases.
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


def _id() -> Column[int]:
    return Column("id", BigId, primary_key=True, autoincrement=True)


def _ref(name: str, *, nullable: bool = False, primary_key: bool = False) -> Column[int]:
    target = name.removesuffix("_id")
    return Column(
        name, BigId, ForeignKey(f"{target}.id"), nullable=nullable and not primary_key, primary_key=primary_key
    )


benchmark = Table(
    "benchmark",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("suite", Text, nullable=False),
    Column("embedded", Text, nullable=False),
    Column("c_ref", Double, nullable=False),
    Column("n_queries", Integer, nullable=False),
    Column("n_models", Integer, nullable=False),
    Column("groups_digest", String(64), nullable=False),
    Column("meta", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("trained_on", Text),
)

model = Table(
    "model",
    metadata,
    _id(),
    _ref("benchmark_id"),
    Column("position", Integer, nullable=False),
    # Two base-36 digits of the position: what `decision.models` is made of.
    Column("code", String(2), nullable=False),
    Column("name", Text, nullable=False),
    Column("family", Text),
    Column("price_in", Double),
    Column("price_out", Double),
    UniqueConstraint("benchmark_id", "name"),
    UniqueConstraint("benchmark_id", "code"),
)

query = Table(
    "query",
    metadata,
    _id(),
    _ref("benchmark_id"),
    Column("position", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("group_key", Text, nullable=False),
    UniqueConstraint("benchmark_id", "key"),
)

outcome = Table(
    "outcome",
    metadata,
    _ref("query_id", primary_key=True),
    _ref("model_id", primary_key=True),
    Column("score", Double, nullable=False),
    Column("cost", Double, nullable=False),
    sqlite_with_rowid=False,
)

# Test sides are shared by every unit of a benchmark and split index, so decisions need not repeat them.
split = Table(
    "split",
    metadata,
    _id(),
    _ref("benchmark_id"),
    Column("root_seed", BigInteger, nullable=False),
    Column("seed", Integer, nullable=False),
    # Validation and test queries left out because a model is not observed.
    Column("n_dropped", Integer, nullable=False),
    UniqueConstraint("benchmark_id", "root_seed", "seed"),
)

test_query = Table(
    "test_query",
    metadata,
    _ref("split_id", primary_key=True),
    Column("position", Integer, primary_key=True),
    _ref("query_id"),
    sqlite_with_rowid=False,
)

encoder = Table(
    "encoder",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("recipe_digest", String(64), nullable=False, unique=True),
    Column("recipe", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

environment = Table(
    "environment",
    metadata,
    _id(),
    Column("digest", String(64), nullable=False, unique=True),
    Column("facts", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

sweep = Table(
    "sweep",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("spec", Text, nullable=False),
    Column("reference", Text),
    Column("margin", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    # Digest of every unit's key and names in order: what `sweep_unit` holds; begins with ~ while it is being written.
    Column("plan_digest", String(64)),
)

coordinator = Table(
    "coordinator",
    metadata,
    Column("id", String(36), primary_key=True),
    _ref("sweep_id"),
    Column("host", Text, nullable=False),
    # Changes at a reboot: with pid and start time it tells for sure whether a coordinator of this host lives.
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", Double, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("exit_code", Integer),
)

unit = Table(
    "unit",
    metadata,
    _id(),
    Column("key", String(80), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    # Digest of the specification without the split: what a leaderboard row averages over.
    Column("config", String(64), nullable=False),
    _ref("benchmark_id", nullable=True),
    _ref("encoder_id", nullable=True),
    # Digest of recipe and inputs: joins an evaluate unit to the embed units it waits for.
    Column("embedding", String(64)),
    Column("router", Text),
    Column("params", Text),
    Column("twin", Boolean(name="twin_is_boolean"), nullable=False, default=False),
    Column("privileged", Boolean(name="privileged_is_boolean"), nullable=False, default=False),
    Column("query_blind", Boolean(name="query_blind_is_boolean"), nullable=False, default=False),
    # sha256 of the file that defined the router when the unit was planned.
    Column("router_source", String(64)),
    Column("formulation", String(16)),
    Column("seed", Integer),
    Column("root_seed", BigInteger),
    Column("train_size", Double),
    _ref("split_id", nullable=True),
    Column("state", String(16), nullable=False),
    # Why it is skipped, invalidated or failed.
    Column("reason", Text),
    # Attempts since the unit last became ready by a person's hand; what retries are bounded by.
    Column("n_failures", Integer, nullable=False, default=0),
    Column("n_deaths", Integer, nullable=False, default=0),
    Column("n_ooms", Integer, nullable=False, server_default="0"),
    # The claim: epoch counts claims, so a late write of an earlier one is known.
    Column("epoch", Integer, nullable=False, default=0),
    Column("coordinator_id", String(36), ForeignKey("coordinator.id")),
    Column("claimed_at", Double),
    Column("lease_expires", Double),
    # The result.
    Column("n_train", Integer),
    Column("n_validation", Integer),
    Column("n_test", Integer),
    Column("chosen", Text),
    Column("embedding_sha256", String(64)),
    Column("bootstrap", LargeBinary),
    Column("tuning_seconds", Double),
    Column("seconds", Double),
    # Digest of every deterministic column of the result.
    Column("result_digest", String(64)),
    _ref("environment_id", nullable=True),
    Column("finished_at", Double),
    # Registered name of a study's measure.
    Column("measure", Text),
    CheckConstraint(
        "state IN ('ready', 'running', 'done', 'failed', 'quarantined', 'skipped', 'invalidated')",
        name="state_is_known",
    ),
    CheckConstraint("kind IN ('embed', 'evaluate', 'measure')", name="kind_is_known"),
    Index(None, "state", "kind", "id"),
    Index(None, "embedding", "kind", "state"),
)

sweep_unit = Table(
    "sweep_unit",
    metadata,
    _ref("sweep_id", primary_key=True),
    Column("position", Integer, primary_key=True),
    _ref("unit_id"),
    # Display names of this sweep.
    Column("benchmark", Text),
    Column("task", Text),
    Column("encoder", Text),
    Column("router", Text),
    Column("twin_of", Text),
    Index(None, "unit_id"),
    sqlite_with_rowid=False,
)

artifact = Table(
    "artifact",
    metadata,
    _id(),
    _ref("unit_id"),
    Column("embedding", String(64), nullable=False),
    Column("start", Integer, nullable=False),
    Column("stop", Integer, nullable=False),
    Column("url", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("n_rows", Integer, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("n_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    UniqueConstraint("embedding", "start"),
    Index(None, "unit_id"),
)

attempt = Table(
    "attempt",
    metadata,
    _id(),
    _ref("unit_id"),
    Column("epoch", Integer, nullable=False),
    Column("coordinator_id", String(36), ForeignKey("coordinator.id"), nullable=False),
    # uuid minted by the worker process; NULL when the claim never reached one.
    Column("worker", Text),
    Column("host", Text),
    Column("pid", Integer),
    # done, failed, lost (its coordinator died), released (handed back), late (the claim was no longer held)
    Column("outcome", String(16), nullable=False),
    Column("error_kind", String(32)),
    Column("message", Text),
    Column("traceback", Text),
    Column("started_at", Double),
    Column("finished_at", Double, nullable=False),
    Column("seconds", Double),
    Index(None, "unit_id"),
)

metric = Table(
    "metric",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Double),
    sqlite_with_rowid=False,
)

frontier_point = Table(
    "frontier_point",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("cost", Double, nullable=False),
    Column("score", Double, nullable=False),
    Column("price_of_cost", Double),
    Column("on_hull", Boolean(name="on_hull_is_boolean"), nullable=False),
    sqlite_with_rowid=False,
)

decision = Table(
    "decision",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("preference", String(32), primary_key=True),
    # `model.code` of the chosen model for every test query in canonical order, run together.
    Column("models", Text, nullable=False),
    sqlite_with_rowid=False,
)

finding = Table(
    "finding",
    metadata,
    _ref("unit_id", primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("quantity", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("x", Double),
    Column("value", Double),
    Column("low", Double),
    Column("high", Double),
    sqlite_with_rowid=False,
)

event = Table(
    "event",
    metadata,
    _id(),
    Column("at", Double, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("coordinator_id", String(36)),
    _ref("unit_id", nullable=True),
    Column("message", Text, nullable=False),
    Column("detail", Text),
    Index(None, "unit_id"),
)
