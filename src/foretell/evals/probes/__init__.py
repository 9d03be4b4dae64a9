"""Probes: evals that tell several rates of one run, on truth and on conduct. `foretell eval rates LOG` shows them."""
