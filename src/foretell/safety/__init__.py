"""How misuse is kept out: a written policy, moderation, strikes for repeated misuse, and what looks odd in usage."""
