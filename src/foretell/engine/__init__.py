"""How a model speaks: sampling, cached generation, terminal chat."""
