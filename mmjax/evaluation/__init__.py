"""How good a model is: retrieval, zero-shot classification and probes, as plain functions of embeddings."""
