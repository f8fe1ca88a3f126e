"""Tests, leaderboards and verdicts: data frames in, plain values out, no I/O."""

from __future__ import annotations

from orchestrator.analysis.comparisons import Comparison, compare, compare_to_reference, comparison_frame
from orchestrator.analysis.corrected_t import CorrectedTest, nadeau_bengio
from orchestrator.analysis.leaderboard import leaderboard_table
from orchestrator.analysis.sentences import comparison_sentence, verdict_sentence
from orchestrator.analysis.verdicts import Kind, Learned

__all__ = [
    "Comparison",
    "CorrectedTest",
    "Kind",
    "Learned",
    "compare",
    "compare_to_reference",
    "comparison_frame",
    "comparison_sentence",
    "leaderboard_table",
    "nadeau_bengio",
    "verdict_sentence",
]
