"""The layers of the package: imports go down the list of docs/architecture.md only, never up, sideways or round."""

import pathlib
import subprocess
import sys

import pytest

from tests.import_graph import cycle, imports, modules

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = "mmjax"

LAYERS = (
    ("core",),
    ("layers",),
    ("encoders", "fusion", "decoders", "losses", "data"),
    ("model",),
    ("tasks",),
    ("balance",),
    ("evaluation", "weights"),
    ("training",),
    ("planning", "doctor", "notebook"),
    ("cli",),
    ("__main__",),
)
"""A part imports parts of earlier lines only; parts of one line never import one another."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Heavy, or with a side effect on import: one place each.
ONLY_IN = {
    "tensorflow": ("mmjax.data.tf",),
    "tensorflow_datasets": ("mmjax.data.",),
    "pickle": (),
    "dill": (),
    "cloudpickle": (),
}


def part(module: str) -> str:
    """'mmjax.layers.mlp' -> 'layers'; the package's own face (`mmjax/__init__.py`) is ''."""
    return module.split(".")[1] if "." in module else ""


def violations(root: pathlib.Path) -> list[str]:
    """Returns a sentence for each file without a place in the list, upward or sideways import, and one cycle."""
    found, edges = [], {}
    for module in modules(root, PACKAGE):
        if part(module) and part(module) not in RANK:
            found.append(f"{module}: {part(module)!r} has no place in the list of layers; give it one.")
    for item in imports(root, PACKAGE):
        if item.target.split(".")[0] != PACKAGE:
            continue
        if item.top_level:
            edges.setdefault(item.module, set()).add(item.target)
        importer, imported = part(item.module), part(item.target)
        if importer and importer != imported and not _below(imported, importer):
            found.append(f"{item.module}:{item.line} imports {item.target}, which is not below it in the layers.")
        if not importer and item.top_level:
            found.append(f"{item.module}:{item.line} imports {item.target}: the package's face must stay light.")
    if round_trip := cycle(edges):
        found.append(f"modules import one another in a circle: {' -> '.join(round_trip)}")
    return found


def _below(imported: str, importer: str) -> bool:
    return imported in RANK and importer in RANK and RANK[imported] < RANK[importer]


def test_package_keeps_to_the_layers():
    assert not violations(ROOT), "\n".join(violations(ROOT))


def test_restricted_imports():
    wrong = [
        f"{item.module}:{item.line} imports {item.target}"
        for item in imports(ROOT, PACKAGE)
        for name, places in ONLY_IN.items()
        if item.target.split(".")[0] == name and not any(f"{item.module}.".startswith(place) for place in places)
    ]
    assert not wrong, "\n".join(wrong)


def planted(tmp_path: pathlib.Path, **files: str) -> list[str]:
    """Returns the violations of a small sound package with some files (path with '__' for '/') put in."""
    sound = {
        "__init__": "",
        "core__types": "import numpy",
        "layers__mlp": "from mmjax.core import types",
        "losses__ring": "from mmjax.core.types import Batch\nfrom mmjax.layers.mlp import Mlp",
        "model": "from mmjax.layers import mlp",
        "training__loop": "from mmjax.model import M",
    }
    for name, source in (sound | files).items():
        path = tmp_path / PACKAGE / (name.replace("__", "/") + ".py" if name != "__init__" else "__init__.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return violations(tmp_path)


def test_checker_passes_a_sound_package(tmp_path):
    assert (
        planted(tmp_path, evaluation__a="import mmjax.model\nfrom . import b", evaluation__b="import mmjax.core") == []
    )


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"core__trees": "import mmjax.layers.mlp"}, "mmjax.core.trees:1 imports mmjax.layers.mlp"),
        ({"core__trees": "def f():\n    from mmjax import model"}, "mmjax.core.trees:2 imports mmjax.model"),
        ({"core__trees": "from mmjax import load"}, "mmjax.core.trees:1 imports mmjax,"),
        ({"core__trees": "from ..layers import mlp"}, "mmjax.core.trees:1 imports mmjax.layers.mlp"),
        ({"core__trees": "from .. import layers"}, "mmjax.core.trees:1 imports mmjax"),
        ({"layers__a": "if TYPE_CHECKING:\n    from mmjax.model import M"}, "mmjax.layers.a:2 imports mmjax.model"),
        ({"data__a": "from mmjax.losses.ring import f"}, "mmjax.data.a:1 imports mmjax.losses.ring"),
        ({"weights__a": "import mmjax.evaluation.b", "evaluation__b": ""}, "mmjax.weights.a:1 imports"),
        ({"notebook__a": "import mmjax.cli", "cli": ""}, "mmjax.notebook.a:1 imports mmjax.cli"),
        ({"extras__a": ""}, "mmjax.extras.a: 'extras' has no place"),
        ({"layers__a": "from mmjax.layers import b", "layers__b": "from mmjax.layers import a"}, "in a circle"),
        ({"__init__": "from mmjax.core import types"}, "mmjax:1 imports mmjax.core.types: the package's face"),
    ],
)
def test_checker_finds_planted_violations(tmp_path, files, told):
    found = planted(tmp_path, **files)
    assert len(found) == 1 and told in found[0], found


def test_checker_finds_both_halves_of_a_package_cycle(tmp_path):
    files = {"tasks__a": "import mmjax.training.loop", "training__loop": "import mmjax.tasks.a"}
    found = planted(tmp_path, **files)
    assert "mmjax.tasks.a:1 imports mmjax.training.loop" in found[0]
    assert found[1].endswith("mmjax.tasks.a -> mmjax.training.loop -> mmjax.tasks.a")


def test_import_of_the_package_is_light():
    heavy = ["jax", "flax", "numpy", "tensorflow", "orbax", "cv2", "matplotlib"]
    source = f"import sys, mmjax; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_load_is_found_when_it_is_asked_for():
    import mmjax
    from mmjax.notebook.loaded import load

    assert mmjax.load is load
    with pytest.raises(AttributeError, match="laod"):
        _ = mmjax.laod
