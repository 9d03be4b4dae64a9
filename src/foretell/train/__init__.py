"""How it learns: one loop for pre-training, SFT and reward models."""
