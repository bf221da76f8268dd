"""One file a decoder: Outputs of the fusion -> predictions."""
