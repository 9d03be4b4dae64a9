"""The system card: what a model is and what was measured of it, each number with the file it was read from.

`figures` holds the types that a number can be told by, `blocks` what a card is made of, `parts` its parts, `forms` the
measurements it understands, `render` and `markdown` how it is shown, and `write` puts them together.
"""
