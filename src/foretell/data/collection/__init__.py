"""A collection: documents that a recipe read, filtered and deduplicated, with the story of each."""
