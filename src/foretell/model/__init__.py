"""What the model is: decoder, vision tower, connector, parametrisation, weights."""
