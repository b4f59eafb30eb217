"""Rounds, phases, ledger, gate, synthesis, evaluation."""
