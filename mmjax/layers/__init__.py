"""Parts that every encoder, fusion and decoder is built from."""
