"""The imports of a package, read from its source without running it."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Import:
    """One import statement.

    Attributes:
      module: dotted name of the importing module ('mmjax.layers.mlp').
      target: dotted name of what it imports ('mmjax.core.mesh', 'numpy'): a module, as far as the files tell.
      line: of the statement.
      top_level: it runs when the module is imported: not inside a function, nor under `if TYPE_CHECKING`.
    """

    module: str
    target: str
    line: int
    top_level: bool


def modules(root: pathlib.Path, package: str) -> dict[str, pathlib.Path]:
    """Returns dotted name -> file of every module of the package in root."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: pathlib.Path, package: str) -> list[Import]:
    """Returns every import of every module of the package in root, those inside functions too."""
    files = modules(root, package)
    found = []
    for module, path in files.items():
        is_package = path.name == "__init__.py"
        for node, top_level in _statements(ast.parse(path.read_text(), str(path)), True):
            for target in _targets(node, module, is_package, files):
                found.append(Import(module, target, node.lineno, top_level))
    return found


def _statements(node: ast.AST, top_level: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, top_level
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _type_checking(child)
        yield from _statements(child, top_level and not later)


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _targets(
    node: ast.Import | ast.ImportFrom, module: str, is_package: bool, files: dict[str, pathlib.Path]
) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = module.split(".")
        parents = parents[: len(parents) - node.level + is_package]
        base = ".".join([*parents, base]).strip(".")
    # `from mmjax.losses import ring` imports a module, `from mmjax.losses.ring import f` a name of one.
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in files else base for alias in node.names]


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """Returns the nodes of one cycle of the graph, the first repeated at the end; [] where there is none."""
    state: dict[str, bool] = {}  # node -> whether it is done

    def visit(node: str, path: list[str]) -> list[str]:
        if node in state:
            return [] if state[node] else [*path[path.index(node) :], node]
        state[node] = False
        for following in sorted(edges.get(node, ())):
            if found := visit(following, [*path, node]):
                return found
        state[node] = True
        return []

    return next((found for node in sorted(edges) if (found := visit(node, []))), [])
