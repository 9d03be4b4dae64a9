"""Visual benchmarks by their published measures, each question beside its blind, shuffled and majority controls."""
