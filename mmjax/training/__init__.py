"""The training system: one trainer for every task."""
