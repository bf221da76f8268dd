"""What is optimised: one file a task."""
