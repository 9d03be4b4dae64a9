"""How a model is examined."""
