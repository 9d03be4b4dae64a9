"""How it learns to behave: supervised fine-tuning, preferences, rewards."""
