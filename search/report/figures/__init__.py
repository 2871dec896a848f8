"""The report's pictures: each a function of what was found, to a `Figure` that is SVG and PNG."""
