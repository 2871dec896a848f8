"""The report's tables: each a function of what was found."""
