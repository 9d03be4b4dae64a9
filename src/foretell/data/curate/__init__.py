"""Curation: what is done to one document at a time, and what is asked of all of them."""
