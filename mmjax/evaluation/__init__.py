"""How good a model is, and why it answers as it does: evaluators, and plain functions of what a model gives."""
