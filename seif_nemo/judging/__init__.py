"""Judging rows of others: (response, what it should satisfy) to verdicts. Pure Python."""
