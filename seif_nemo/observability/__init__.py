"""Metrics, timers, progress, logging and the report."""
