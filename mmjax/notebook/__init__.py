"""A trained run in a notebook: load it, ask it, look at what it sees."""
