"""Red team: families of attacks against areas of risk, on any model, searched and tested on fresh requests."""
