"""How often do our tests and intervals err where the true difference is 0? Rates from drawn mirror twins."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri, stdtrit

from orchestrator.analysis.corrected_t import detectable_factor
from orchestrator.analysis.verdicts import ALPHA
from orchestrator.errors import AnalysisError

#: Margin of the equivalence tests in Nadeau-Bengio standard errors of the design.
MARGIN = 3.0
#: What each rate has to lie in; the failing tests and the conditional bootstrap have no such limits.
LIMITS: Mapping[str, tuple[float, float]] = {
    "nadeau_bengio": (0.025, 0.075),
    "coverage_95": (0.925, 0.975),
    "tost_at_margin": (0.0, 0.065),
    "tost_power": (0.5, 1.0),
    "power_at_detectable": (0.75, 0.85),
}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of repetitions."""

    hits: int
    repetitions: int

    @property
    def value(self) -> float:
        """Share."""
        return self.hits / self.repetitions

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Wilson 1927."""
        from scipy.stats import binomtest

        found = binomtest(self.hits, self.repetitions).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """One router at one size in one area; differences in points of it.

    Rates, each a share of the repetitions, at the level of 5 %:

    - `nadeau_bengio`, `plain_t`, `wilcoxon`: the test rejects, with a true difference of 0.
    - `coverage_95`: the corrected 95 % interval holds the true difference.
    - `coverage_bootstrap`: estimate +- 1.96 bootstrap sd, conditional on the fitted routers, holds it; `auc_path` only.
    - `tost_at_margin`: equivalence is claimed although router 2 was given exactly the margin.
    - `tost_power`: equivalence is claimed with a true difference of 0.
    - `power_at_detectable`: the corrected test rejects when router 2 was given exactly the detectable difference.
    """

    router: str
    #: Queries of a data set.
    n: int
    #: Splits of a data set.
    k: int
    metric: str
    repetitions: int
    #: n_test / n_train.
    ratio: float
    #: Mean difference over the repetitions, 0 but for chance.
    mean: float
    #: sd of the mean differences over the repetitions: what a standard error estimates.
    spread: float
    #: Nadeau-Bengio standard error, root of the mean square over the repetitions.
    se: float
    #: sd of the conditional bootstrap, likewise; None where there is none.
    bootstrap_sd: float | None
    #: `MARGIN` times `se`.
    margin: float
    #: The true difference that is to be found with 80 % power, by the mean variance over splits.
    detectable: float
    rates: Mapping[str, Rate]

    @property
    def outside(self) -> tuple[str, ...]:
        """Rates outside their limits."""
        return tuple(
            name
            for name, (low, high) in LIMITS.items()
            # In counts, so that a rate on a limit does not depend on rounding.
            if not math.ceil(low * self.repetitions - 1e-9)
            <= self.rates[name].hits
            <= math.floor(high * self.repetitions + 1e-9)
        )


def calibrations(findings: pd.DataFrame, *, margin: float = MARGIN) -> list[Calibrated]:
    """Rates of a `study: calibration`, by router, size and area, in the sweep file's order of units.

    Args:
        findings: The view `findings` of one sweep; columns measure, params, router, quantity, label, x, value.
        margin: Margin of the equivalence tests in Nadeau-Bengio standard errors.

    Raises:
        AnalysisError: It holds no finding of a calibration.
    """
    rows = findings[findings["measure"] == "calibration"]
    if rows.empty:
        raise AnalysisError("this sweep has no finding of a calibration; run one with `study: calibration`.")
    parsed = {text: json.loads(text) for text in rows["params"].unique()}
    rows = rows.assign(n=[parsed[text]["n"] for text in rows["params"]])
    found = []
    for _, own in rows.groupby(["router", "n"], sort=False):
        sizes = own[own["quantity"].isin(("n_train", "n_test"))].groupby("quantity")["value"].first()
        drawn = own[own["x"].notna()].drop_duplicates(["quantity", "label", "x"])
        table = drawn.pivot(index="x", columns=["quantity", "label"], values="value")
        bootstrap = table.get(("bootstrap_sd", "auc_path"))
        for metric in dict.fromkeys(drawn["label"]):
            found.append(
                _calibrated(
                    router=str(own["router"].iloc[0]),
                    n=int(own["n"].iloc[0]),
                    k=int(parsed[own["params"].iloc[0]]["splits"]),
                    metric=str(metric),
                    ratio=float(sizes["n_test"] / sizes["n_train"]),
                    mean=table["difference", metric].to_numpy(np.float64),
                    sd=table["sd", metric].to_numpy(np.float64),
                    wilcoxon_p=table["wilcoxon_p", metric].to_numpy(np.float64),
                    bootstrap_sd=None if bootstrap is None or metric != "auc_path" else bootstrap.to_numpy(np.float64),
                    margin=margin,
                )
            )
    return found


def calibration_frame(calibrated: Sequence[Calibrated]) -> pd.DataFrame:
    """A row for each rate: design, `rate`, `value`, its Wilson interval `low`, `high`, and `inside` of its limits."""

    def rows() -> Iterator[dict[str, Any]]:
        for one in calibrated:
            design = {name: getattr(one, name) for name in ("router", "n", "k", "metric", "repetitions")}
            for name, rate in one.rates.items():
                low, high = rate.interval
                inside = None if name not in LIMITS else name not in one.outside
                yield {**design, "rate": name, "value": rate.value, "low": low, "high": high, "inside": inside}

    return pd.DataFrame(rows())


def calibration_table(calibrated: Sequence[Calibrated]) -> str:
    """The study as a Markdown table in per cent, a row for each design; `!` marks a rate outside its limits."""
    names = list(dict.fromkeys(name for one in calibrated for name in one.rates))
    head = ["router", "n", "area", "data sets", *(name.replace("_", " ") for name in names)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for one in calibrated:
        cells = [one.router, str(one.n), one.metric, str(one.repetitions)]
        for name in names:
            rate = one.rates.get(name)
            cells.append("–" if rate is None else f"{100 * rate.value:.1f}{' !' * (name in one.outside)}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _calibrated(
    *,
    router: str,
    n: int,
    k: int,
    metric: str,
    ratio: float,
    mean: npt.NDArray[np.float64],
    sd: npt.NDArray[np.float64],
    wilcoxon_p: npt.NDArray[np.float64],
    bootstrap_sd: npt.NDArray[np.float64] | None,
    margin: float,
) -> Calibrated:
    """One design; arrays are over its repetitions. The tests are those of `corrected_t`, many at once."""
    two_sided, one_sided = stdtrit(k - 1, 1 - ALPHA / 2), stdtrit(k - 1, 1 - ALPHA)
    se = sd * math.sqrt(1 / k + ratio)
    typical_se = _root_mean_square(se)
    given = margin * typical_se
    detectable = detectable_factor(k, ratio) * _root_mean_square(sd)

    def rejects(true: float) -> npt.NDArray[np.bool_]:
        return np.asarray(np.abs(mean - true) > two_sided * se)

    def equivalent(true: float) -> npt.NDArray[np.bool_]:
        return np.asarray(np.abs(mean - true) + one_sided * se < given)

    hits = {
        "nadeau_bengio": rejects(0.0),
        "plain_t": np.abs(mean) > two_sided * sd / math.sqrt(k),
        "wilcoxon": wilcoxon_p < ALPHA,
        "coverage_95": (mean - two_sided * se <= 0) & (mean + two_sided * se >= 0),
        "tost_at_margin": equivalent(given),
        "tost_power": equivalent(0.0),
        "power_at_detectable": rejects(detectable),
    }
    if bootstrap_sd is not None:
        hits["coverage_bootstrap"] = np.abs(mean) <= ndtri(0.975) * bootstrap_sd
    return Calibrated(
        router=router,
        n=n,
        k=k,
        metric=metric,
        repetitions=len(mean),
        ratio=ratio,
        mean=float(mean.mean()),
        spread=float(mean.std(ddof=1)) if len(mean) > 1 else math.nan,
        se=typical_se,
        bootstrap_sd=None if bootstrap_sd is None else _root_mean_square(bootstrap_sd),
        margin=given,
        detectable=detectable,
        rates={name: Rate(hits=int(hit.sum()), repetitions=len(hit)) for name, hit in hits.items()},
    )


def _root_mean_square(values: npt.NDArray[np.float64]) -> float:
    return math.sqrt(float(np.mean(values**2)))
