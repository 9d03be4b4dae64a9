"""How misuse is kept out: a written policy, moderation of what goes in and what comes out, strikes, and odd usage."""
