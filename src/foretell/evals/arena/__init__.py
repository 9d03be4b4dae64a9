"""Blind pairwise preference: models answer the same prompts, judges say which of two replies is better.

A folder holds one arena: its settings, prompts, replies, critiques, and the judgements of models and people. Results
are always computed from these files.
"""
