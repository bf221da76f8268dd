"""Power spectra by FFT and by matmul agree, and over a mesh nothing is gathered."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers.spectrum import power_spectrum
from tests.devices import run_on_devices


def test_frames_shorter_than_the_transform_are_filled_up_with_zeros():
    frames = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)
    expected = np.abs(np.fft.rfft(np.pad(frames.astype(np.float64), ((0, 0), (0, 14))))) ** 2
    found = jax.jit(power_spectrum, static_argnums=1)(jnp.asarray(frames), 64)
    np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())


def test_a_sharded_batch_gives_the_same_log_mel_and_is_not_gathered():
    run_on_devices("""
        import jax, numpy as np
        from mmjax.core.mesh import MeshShape, batch_sharding, make_mesh
        from mmjax.layers.mel import AstMel, LogMel

        rng = np.random.default_rng(0)
        sound = (0.3 * np.sin(np.arange(3200) * 0.1) + 0.02 * rng.standard_normal((8, 3200))).astype(np.float32)
        mask = np.arange(3200) < rng.integers(500, 3200, (8, 1))
        mesh = make_mesh(MeshShape(2, 2, 2))
        for mel in (LogMel(), AstMel(log="none")):
            expected, valid = jax.jit(mel)(sound, mask)
            with jax.set_mesh(mesh):
                sharded = jax.jit(mel, in_shardings=(batch_sharding(mesh),) * 2)
                found = sharded(sound, mask)
                program = sharded.lower(sound, mask).compile().as_text()
            assert (np.asarray(found[1]) == np.asarray(valid)).all()
            atol = 1e-4 if mel.log == "whisper" else 1e-6 * expected.max()
            np.testing.assert_allclose(found[0], expected, rtol=0, atol=atol)
            assert "dot" in program and "all-gather" not in program and "fft" not in program.split("HloModule")[1]
        """)
