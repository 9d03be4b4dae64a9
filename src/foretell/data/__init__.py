"""What the model reads: sources, the generated world, tokenizer, packing, loading."""
