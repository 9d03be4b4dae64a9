"""How misuse is kept out: a written policy, and moderation of what goes in and what comes out."""
