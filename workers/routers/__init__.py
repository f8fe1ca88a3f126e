"""Routers: one file per family."""
