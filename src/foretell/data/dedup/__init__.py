"""Deduplication and decontamination: global passes, each a sketch of every shard, one merge, and a second reading."""
