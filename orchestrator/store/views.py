"""The views: the stable surface for people's queries and for the reports (design 5).

What their columns hold is said in `view_columns`.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from orchestrator.store.view_columns import VIEWS

NAMES = tuple(VIEWS)


def recreate(connection: Connection) -> None:
    """Drop and create every view; each migration ends with it."""
    drop(connection)
    for statement in _statements(connection.dialect.name):
        connection.execute(text(statement))


def drop(connection: Connection) -> None:
    """Drop every view; each migration begins with it, because SQLite's batch mode breaks under views."""
    for name in NAMES:
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def _statements(dialect: str) -> list[str]:
    if dialect == "postgresql":
        moment = "to_timestamp({})"
        greatest = "greatest"
    else:
        moment = "strftime('%Y-%m-%d %H:%M:%f', {}, 'unixepoch')"
        greatest = "max"

    def metric(name: str) -> str:
        return f"(SELECT m.value FROM metric m WHERE m.unit_id = u.id AND m.name = '{name}') AS {name}"

    def mean(column: str, name: str) -> str:
        return f"avg(r.{column}) AS {name}"

    def sd(column: str, name: str) -> str:
        # Two passes are not to be had in one aggregate: centred on the group's mean by the join.
        return (
            f"CASE WHEN count(r.{column}) > 1 THEN sqrt({greatest}(0.0, "
            f"sum((r.{column} - c.{column}) * (r.{column} - c.{column})) / (count(r.{column}) - 1))) END AS {name}"
        )

    metrics = ", ".join(
        metric(name)
        for name in (
            "auc", "auc_path", "auc_rel", "aiq", "peak_score", "qnc", "gain_at_best_cost", "oracle_gap_closed",
            "utility_low_cost", "utility_balanced", "utility_high_performance", "utility_mean",
            "fit_seconds", "route_us_per_query", "router_bytes",
        )
    )  # fmt: skip
    return [
        f"""
        CREATE VIEW results AS
        SELECT s.name AS sweep, u.key AS unit_key, su.benchmark, su.task, b.suite, su.encoder, su.router, u.params,
               u.chosen, u.seed, u.train_size, u.n_train, u.n_validation, u.n_test, sp.n_dropped,
               u.formulation, {metrics},
               u.tuning_seconds, u.privileged, u.query_blind, su.twin_of, u.config, su.position AS sweep_position,
               {moment.format("u.finished_at")} AS finished_at, b.trained_on
        FROM sweep_unit su
        JOIN sweep s ON s.id = su.sweep_id
        JOIN unit u ON u.id = su.unit_id
        JOIN benchmark b ON b.id = u.benchmark_id
        JOIN split sp ON sp.id = u.split_id
        WHERE u.kind = 'evaluate' AND u.state = 'done'
        """,
        # Baselines that need no embedding are repeated under every encoder of their benchmark.
        f"""
        CREATE VIEW leaderboard AS
        WITH named AS (
            SELECT DISTINCT sweep, benchmark, encoder FROM results WHERE encoder IS NOT NULL
        ), centre AS (
            SELECT sweep, benchmark, encoder, router, formulation, train_size, config,
                   avg(auc) AS auc, avg(auc_path) AS auc_path
            FROM results GROUP BY sweep, benchmark, encoder, router, formulation, train_size, config
        )
        SELECT r.sweep, r.benchmark, max(r.task) AS task, coalesce(r.encoder, n.encoder) AS encoder, r.router,
               r.formulation, r.train_size, count(*) AS n_seeds,
               {mean("auc", "auc_mean")}, {sd("auc", "auc_sd")},
               {mean("auc_path", "auc_path_mean")}, {sd("auc_path", "auc_path_sd")},
               {mean("auc_rel", "auc_rel_mean")}, {mean("utility_mean", "utility_mean")},
               r.config, max(r.params) AS params, min(r.sweep_position) AS sweep_position
        FROM results r
        JOIN centre c ON c.sweep = r.sweep AND c.benchmark = r.benchmark AND c.router = r.router
             AND c.formulation = r.formulation AND c.train_size = r.train_size AND c.config = r.config
             AND coalesce(c.encoder, '') = coalesce(r.encoder, '')
        LEFT JOIN named n ON r.encoder IS NULL AND n.sweep = r.sweep AND n.benchmark = r.benchmark
        GROUP BY r.sweep, r.benchmark, coalesce(r.encoder, n.encoder), r.router, r.formulation, r.train_size, r.config
        """,
        """
        CREATE VIEW findings AS
        SELECT s.name AS sweep, u.key AS unit_key, u.measure, su.benchmark, su.task, b.suite, su.encoder, su.router,
               u.params, u.seed, f.position, f.quantity, f.label, f.x, f.value, f.low, f.high
        FROM sweep_unit su
        JOIN sweep s ON s.id = su.sweep_id
        JOIN unit u ON u.id = su.unit_id
        JOIN benchmark b ON b.id = u.benchmark_id
        JOIN finding f ON f.unit_id = u.id
        WHERE u.kind = 'measure' AND u.state = 'done'
        """,
        """
        CREATE VIEW decisions AS
        SELECT s.name AS sweep, u.key AS unit_key, su.benchmark, su.encoder, su.router, u.formulation, u.seed,
               u.train_size, d.preference, q.key AS query_key, m.name AS model, o.score, o.cost
        FROM sweep_unit su
        JOIN sweep s ON s.id = su.sweep_id
        JOIN unit u ON u.id = su.unit_id
        JOIN decision d ON d.unit_id = u.id
        JOIN test_query t ON t.split_id = u.split_id
        JOIN query q ON q.id = t.query_id
        JOIN model m ON m.benchmark_id = u.benchmark_id AND m.code = substr(d.models, 2 * t.position + 1, 2)
        JOIN outcome o ON o.query_id = q.id AND o.model_id = m.id
        WHERE u.state = 'done'
        """,
        """
        CREATE VIEW frontier AS
        SELECT s.name AS sweep, u.key AS unit_key, su.benchmark, su.encoder, su.router, u.formulation, u.seed,
               u.train_size, f.position, f.cost, f.score, f.price_of_cost, f.on_hull
        FROM sweep_unit su
        JOIN sweep s ON s.id = su.sweep_id
        JOIN unit u ON u.id = su.unit_id
        JOIN frontier_point f ON f.unit_id = u.id
        WHERE u.state = 'done'
        """,
        # The states of all units are read off their index, not off a million wide rows.
        """
        CREATE VIEW progress AS
        SELECT s.name AS sweep, u.kind, u.state, count(*) AS n
        FROM sweep s CROSS JOIN unit u
        WHERE EXISTS (SELECT 1 FROM sweep_unit su WHERE su.sweep_id = s.id AND su.unit_id = u.id)
        GROUP BY s.name, u.kind, u.state
        """,
        # CROSS JOIN: SQLite then begins with the few units that failed, not with a million of the sweep.
        """
        CREATE VIEW failures AS
        SELECT s.name AS sweep, u.key AS unit_key, u.kind, su.benchmark, su.encoder, su.router, u.seed, u.state,
               a.error_kind, a.message,
               (SELECT count(*) FROM attempt n WHERE n.unit_id = u.id) AS attempts, a.host AS last_host
        FROM unit u
        CROSS JOIN sweep_unit su
        CROSS JOIN sweep s
        LEFT JOIN attempt a ON a.id = (
            SELECT max(l.id) FROM attempt l WHERE l.unit_id = u.id AND l.outcome = 'failed')
        WHERE u.state IN ('failed', 'quarantined') AND su.unit_id = u.id AND s.id = su.sweep_id
        """,
    ]
