"""One device, eight devices and two processes take the same steps."""

import numpy as np
import pytest

from benchmarks import meshes

pytestmark = pytest.mark.slow


def test_losses_agree_to_1e_4(tmp_path):
    rows = iter(meshes.ROWS.items())
    _, alone = next(rows)
    reference = meshes.train(tmp_path / "alone", *alone, 20)
    assert len(reference) == 20
    for number, (name, row) in enumerate(rows):
        found = meshes.train(tmp_path / str(number), *row, 20)
        np.testing.assert_allclose(found, reference, rtol=1e-4, err_msg=name)
