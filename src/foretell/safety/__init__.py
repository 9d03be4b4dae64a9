"""How misuse is kept out: a written policy, moderation, strikes against repeated misuse, and what looks odd in usage."""
