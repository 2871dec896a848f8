"""The Galaxy Zoo decision tree and the class recipes over its vote fractions."""
