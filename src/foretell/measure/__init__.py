"""Shared instruments: what several rooms measure with."""
