"""Log-mel spectrograms on the device, in float32: Whisper's and AST's, or any between.

Which frames of a padded waveform are valid: with `center`, frame t stands for the samples [t * hop, (t + 1) * hop)
and is valid where any of them is; without, it is valid where its whole window is (Kaldi's snip_edges), so that a
valid frame is what the recording alone would give. Where no window is whole, the first that a valid sample lies in
stands for the recording, however short it is: a modality that is present has at least one frame.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.core.errors import UserError, at_least, one_of
from mmjax.layers.mel_filters import mel_filters, window
from mmjax.layers.spectrum import power_spectrum

LOGS = ("whisper", "natural", "none")
PAD_MODES = ("reflect", "constant")


@dataclasses.dataclass(frozen=True)
class LogMel:
    """Waveform [B, S] with mask [B, S] -> log-mel [B, F, M] float32 and mask [B, F]; the defaults are Whisper's.

    Samples that are masked or NaN count as silence. Frames that are not valid are 0.

    Attributes:
      sample_rate: of the waveform, in Hz.
      n_fft: samples of the transform; a shorter window is filled up with zeros.
      win_length: samples of the window.
      hop_length: samples from one frame to the next.
      num_mels: M.
      fmin, fmax: the band, in Hz; fmax None is half of the sample rate.
      mel_scale: 'slaney', 'htk' or 'kaldi', see `mel_filters`.
      unit_area: filters of unit area (librosa's norm='slaney') and not of unit height.
      window: 'hann', 'hamming' or 'povey'.
      periodic: the window is one period, of which the last sample is left out.
      center: frame t is centred on sample t * hop_length, F = ceil(S / hop_length), over a waveform that is padded
        by half a window on both sides; else it starts there, and F = 1 + (S - win_length) // hop_length.
      pad_mode: what `center` pads with: 'reflect' (Whisper) or 'constant' zeros, with which the valid frames are the
        same in a buffer of any length. After a recording that is shorter than the buffer zeros come in either case.
      log: 'whisper' (log10, at most 8 below the loudest, then (x + 4) / 4), 'natural' or 'none'. As Whisper does, the
        loudest is looked for in the whole buffer, padding being silence.
      floor: the least power that a logarithm is taken of, above 0.
      preemphasis: c of x[n] - c * x[n - 1], in each frame before the window.
      remove_dc: subtract the mean of each frame first.

    Raises:
      UserError: a setting out of range, or (called) a waveform that is not [B, S] or too short to be reflected.

    References:
      Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, 2022, section 2.2.
    """

    sample_rate: int = 16_000
    n_fft: int = 400
    win_length: int = 400
    hop_length: int = 160
    num_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = None
    mel_scale: str = "slaney"
    unit_area: bool = True
    window: str = "hann"
    periodic: bool = True
    center: bool = True
    pad_mode: str = "reflect"
    log: str = "whisper"
    floor: float = 1e-10
    preemphasis: float = 0.0
    remove_dc: bool = False

    def __post_init__(self) -> None:
        at_least(1, "mel", hop_length=self.hop_length, num_mels=self.num_mels)
        at_least(2, "mel", win_length=self.win_length)
        at_least(self.win_length, "mel", n_fft=self.n_fft)
        one_of(self.log, LOGS, "mel.log")
        one_of(self.pad_mode, PAD_MODES, "mel.pad_mode")
        if self.log != "none" and not self.floor > 0:
            raise UserError(f"mel.floor={self.floor} must be above 0, as log={self.log!r} takes its logarithm.")

    def num_frames(self, samples: int) -> int:
        """Returns F for a waveform of S samples."""
        if self.center:
            return -(-samples // self.hop_length)
        return 1 + max(samples - self.win_length, 0) // self.hop_length

    def __call__(self, waveform: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns log-mel [B, F, M] and mask [B, F]; int16 samples are divided by 2**15."""
        if waveform.ndim != 2 or mask.shape != waveform.shape:
            raise UserError(
                f"mel: expected a waveform and a mask [batch, samples], got {tuple(waveform.shape)} and "
                f"{tuple(mask.shape)}."
            )
        scale = 2.0**-15 if waveform.dtype == jnp.int16 else 1.0
        x = waveform.astype(jnp.float32) * scale
        mask = mask & jnp.isfinite(x)
        frames = self._frames(jnp.where(mask, x, 0.0))  # [B, F, W]
        valid = self._valid(mask)  # [B, F]
        return jnp.where(valid[..., None], self._log(self._mels(frames)), 0.0), valid

    def _frames(self, x: jax.Array) -> jax.Array:
        """Cuts x [B, S] into overlapping frames [B, F, W]: whole blocks are gathered, as long as hop and W allow."""
        count = self.num_frames(x.shape[1])
        if self.center:
            left = self.n_fft // 2 - (self.n_fft - self.win_length) // 2
            right = self.win_length - left
            if self.pad_mode == "reflect" and x.shape[1] <= max(left, right):
                raise UserError(f"mel: {x.shape[1]} samples cannot be reflected over {left}; give more, or 'constant'.")
            x = jnp.pad(x, ((0, 0), (left, right)), self.pad_mode)  # [B, left + S + right]
        return self._windows(self._blocks(x, count), count).reshape(x.shape[0], count, self.win_length)  # [B, F, W]

    def _blocks(self, x: jax.Array, count: int) -> jax.Array:
        """Cuts x [B, S] for `count` windows, with zeros at the end, into [B, blocks, gcd(hop, W)]."""
        block = int(np.gcd(self.hop_length, self.win_length))
        length = (count - 1) * self.hop_length + self.win_length
        x = jnp.pad(x, ((0, 0), (0, max(length - x.shape[1], 0))))[:, :length]
        return x.reshape(x.shape[0], -1, block)

    def _windows(self, blocks: jax.Array, count: int) -> jax.Array:
        """Returns [B, F, blocks of a window, ...] of [B, blocks, ...]."""
        block = int(np.gcd(self.hop_length, self.win_length))
        index = np.arange(count)[:, None] * (self.hop_length // block) + np.arange(self.win_length // block)
        return jnp.take(blocks, index, axis=1)

    def _valid(self, mask: jax.Array) -> jax.Array:
        """Returns which frames are valid, [B, F], of mask [B, S]."""
        count = self.num_frames(mask.shape[1])
        if self.center:
            fill = count * self.hop_length - mask.shape[1]
            mask = jnp.pad(mask, ((0, 0), (0, fill)))
            return mask.reshape(-1, count, self.hop_length).any(axis=2)  # [B, F]
        blocks = self._blocks(mask, count)
        whole = self._windows(blocks.all(axis=2), count).all(axis=2)  # [B, F]
        touched = self._windows(blocks.any(axis=2), count).any(axis=2)  # [B, F]
        first = jnp.arange(count) == jnp.argmax(touched, axis=1)[:, None]  # [B, F]; 0 where no window has any
        alone = mask.any(axis=1) & ~whole.any(axis=1)  # [B]
        return whole | (first & alone[:, None])

    def _mels(self, frames: jax.Array) -> jax.Array:
        if self.remove_dc:
            frames = frames - frames.mean(axis=-1, keepdims=True)
        if self.preemphasis:
            before = jnp.concatenate([frames[..., :1], frames[..., :-1]], axis=-1)
            frames = frames - self.preemphasis * before
        frames = frames * window(self.window, self.win_length, self.periodic).astype(np.float32)
        power = power_spectrum(frames, self.n_fft)  # [B, F, K]
        fmax = self.sample_rate / 2 if self.fmax is None else self.fmax
        filters = mel_filters(
            self.sample_rate, self.n_fft, self.num_mels, self.fmin, fmax, self.mel_scale, self.unit_area
        )
        return jnp.einsum("bfk,km->bfm", power, filters, precision=jax.lax.Precision.HIGHEST)  # [B, F, M]

    def _log(self, mels: jax.Array) -> jax.Array:
        if self.log == "none":
            return mels
        mels = jnp.maximum(mels, self.floor)
        if self.log == "natural":
            return jnp.log(mels)
        x = jnp.log10(mels)
        return (jnp.maximum(x, x.max(axis=(1, 2), keepdims=True) - 8.0) + 4.0) / 4.0


@dataclasses.dataclass(frozen=True)
class AstMel(LogMel):
    """The log-mel of AST: Kaldi's filter bank with a Hann window, 25 ms every 10 ms, 128 mels, no dither.

    Attributes:
      others: as in LogMel.

    References:
      Gong et al., AST: Audio Spectrogram Transformer, 2021, section 2.1; Kaldi's compute-fbank-feats.
    """

    n_fft: int = 512
    num_mels: int = 128
    fmin: float = 20.0
    mel_scale: str = "kaldi"
    unit_area: bool = False
    periodic: bool = False
    center: bool = False
    log: str = "natural"
    floor: float = float(np.finfo(np.float32).eps)
    preemphasis: float = 0.97
    remove_dc: bool = True
