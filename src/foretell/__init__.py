"""Foretell: know your model before you train it."""
