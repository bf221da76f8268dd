"""The README's commands are ones that exist: their options, their configs, their --set paths, their files."""

import pathlib
import re
import shlex

import pytest

from mmjax.cli import parser
from mmjax.core.config import load_config
from mmjax.core.override import override

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def commands() -> list[list[str]]:
    """Returns the words of every command in the README's sh blocks, comments and environment left out."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    without = [[word for word in words if not re.match(r"[A-Z_]+=", word)] for words in found]
    return [words for words in without if words]


def arguments() -> list[list[str]]:
    """Returns what the mmjax command line gets in each of them."""
    train = [["train", *words[2:]] for words in commands() if words[:2] == ["python", "train.py"]]
    return train + [words[3:] for words in commands() if words[:3] == ["python", "-m", "mmjax"]]


def test_the_two_commands_are_there():
    assert "pip install -e '.[demo]' && python train.py --config configs/openmoji.py --workdir runs/openmoji\n" in TEXT
    assert "pip install -e '.[demo,test]' && pytest\n" in TEXT


@pytest.mark.parametrize("words", arguments(), ids=" ".join)
def test_command_line_takes_it(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = parser().parse_args(words)
    if options.command == "train":
        config = load_config(options.config)
        for assignment in options.set:
            override(config, assignment)


def test_files_exist():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    files = {link.partition("#")[0] for link in links} | set(re.findall(r"(?:configs|benchmarks)/\w+\.py", TEXT))
    files |= {".ci/run"}
    assert len(files) > 6
    missing = [name for name in sorted(files) if not (ROOT / name).exists()]
    assert not missing
