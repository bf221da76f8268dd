"""One file a modality: Stream -> Tokens."""
