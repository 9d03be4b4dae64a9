"""Curation: from sources to a collection of Parquet files, with the story of every document."""
