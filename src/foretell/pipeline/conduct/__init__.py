"""Probes of conduct that join the rooms of alignment, moderation and evals: they stand above all three.

The registry of evals names them like any other class; they run, are kept and are compared alike.
"""
