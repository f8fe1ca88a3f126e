"""How do published suites get onto this machine? `suites.yaml` lists them, `fetch.py` brings them."""

from orchestrator.fetching.suites import Suite, SuiteError, find_suite, suite_folder, suite_of, suites

__all__ = ["Suite", "SuiteError", "find_suite", "suite_folder", "suite_of", "suites"]
