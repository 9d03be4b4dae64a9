"""The page on which people judge an arena: on this machine alone."""
