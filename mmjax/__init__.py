"""mmjax: train models over several modalities in JAX."""

__version__ = "0.1.0"
