"""Credentials are masked, in texts and in configs, and what looks like them is left alone."""

import json

import fiddle as fdl
import pytest

from mmjax.core.config import to_json
from mmjax.core.errors import UserError
from mmjax.core.override import describe
from mmjax.core.secrets import masked, masked_json
from mmjax.training.checkpoint import InitFrom


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:s3cret@host/a.tar", "https://***@host/a.tar"),
        ("https://s3cret@host/a.tar", "https://***@host/a.tar"),
        ("simplecache::https://u:a@s3cret@host:80/a", "simplecache::https://***@host:80/a"),
        ("s3://b/a.tar?X-Amz-Signature=s3cret&X-Amz-Date=2026", "s3://b/a.tar?X-Amz-Signature=***&X-Amz-Date=2026"),
        ("?X-Amz-Credential=s3cret%2F1&X-Amz-Security-Token=s3cret", "?X-Amz-Credential=***&X-Amz-Security-Token=***"),
        ("gs://b/a?X-Goog-Signature=s3cret", "gs://b/a?X-Goog-Signature=***"),
        ("https://blob/a?sv=2026&sig=s3cret", "https://blob/a?sv=2026&sig=***"),
        ("https://a/b?AWSAccessKeyId=s3cret", "https://a/b?AWSAccessKeyId=***"),
        ("hf://datasets/a/b?hf_token=s3cret", "hf://datasets/a/b?hf_token=***"),
        ("open(path, api_key='s3cret')", "open(path, api_key='***')"),
        ("password=s3cret, split=train", "password=***, split=train"),
    ],
)
def test_a_text_is_masked(text, expected):
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/user/repo@main/a.tar",
        "data.transforms.text.tokenizer=None",
        "pool='cls_token', num_tokens=5, design=3",
        "/data/a@b/shard-{000..100}.tar",
        "gs://bucket/a.tar?generation=12",
        "step 3: the signature of f is f(x) -> y; tokens: 5 != 4",
    ],
)
def test_what_is_no_secret_is_left_alone(text):
    assert masked(text) == text


def test_a_stored_config_and_its_description_are_masked():
    config = fdl.Config(InitFrom, "https://user:s3cret@host/run", allow_missing=["text/tokenizer.*"])
    nested = fdl.Config(dict, source=config, hf_token="s3cret", options={"password": "s3cret", "split": "train"})
    stored = masked_json(json.loads(to_json(nested)))
    assert "s3cret" not in json.dumps(stored)
    for words in ("https://***@host/run", "text/tokenizer.*", "train"):
        assert words in json.dumps(stored)
    assert "s3cret" not in describe(config) and "https://***@host/run" in describe(config)


def test_an_error_is_masked():
    assert str(UserError("--data 'https://user:s3cret@host/a': no.")) == "--data 'https://***@host/a': no."
