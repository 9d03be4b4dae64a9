"""From documents as they come to documents that are worth training on."""
