"""Constraint specs: text to spec, verifiers, conflict rules. Pure Python."""
