"""A generated world whose truth is known: seeded, unlimited, held out by construction."""
