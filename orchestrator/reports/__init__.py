"""What people see: tables in the terminal and one self-contained HTML page."""

from __future__ import annotations
