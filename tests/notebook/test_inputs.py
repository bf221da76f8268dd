"""Pictures that a person has in a notebook become what evaluation makes of the same file."""

import io

import pytest
from PIL import Image

from mmjax.data.transforms import ImageTransform
from mmjax.notebook.inputs import prepare
from tests.data.memory import encode, picture
from tests.data.test_codec import broken_exif


@pytest.mark.parametrize("name", list(broken_exif()))
def test_a_picture_with_broken_exif_is_taken_as_evaluation_takes_it(name):
    data = encode(picture(0, 30, 44), "WEBP", exif=broken_exif()[name][0])
    transform = ImageTransform(size=16)
    found = prepare(transform, Image.open(io.BytesIO(data)))
    assert (found == transform.prepare({"image": data}, None)).all()
