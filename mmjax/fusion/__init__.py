"""One file a fusion: Tokens of several modalities -> Outputs."""
