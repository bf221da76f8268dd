"""The one place that imports TensorFlow: quiet, without Keras, and never on an accelerator."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # only data moves through TF; this also silences a start-up line
_KERAS = "TF_USE_LEGACY_KERAS"
_chosen = _KERAS in os.environ
os.environ.setdefault(_KERAS, "1")  # else TF imports Keras, two of its five seconds; tf.keras loads when it is used

import tensorflow as tf  # noqa: E402

if not _chosen:
    del os.environ[_KERAS]

for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)

__all__ = ["tf"]
