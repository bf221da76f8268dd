"""A job with the contrastive ring loss on squares and their colours, whose parameters a mesh may shard."""

import fiddle as fdl

from mmjax.training.checkpoint import Keep
from tests.training.tiny import tiny_config


def get_config() -> fdl.Config:
    """Returns the tiny experiment without evaluations."""
    return tiny_config(evaluations={}, keep=fdl.Config(Keep, every=100))
