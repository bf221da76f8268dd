"""Data sets that are built on first use from installed packages, as TFDS builders in ArrayRecord files."""
