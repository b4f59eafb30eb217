"""Topology, process groups, the CPU backend, vocab-parallel log-probs."""
