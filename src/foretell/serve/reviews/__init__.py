"""What moderation found, what reviewers made of it, and the strikes that came of that."""
