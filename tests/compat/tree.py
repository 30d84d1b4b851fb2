"""Python sources read as trees: what a dotted name leads to, across imports and base classes."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

Node = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign | ast.AnnAssign


class Source:
    """The sources of one version of a package."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module = cache(self._module)

    def _module(self, name: str) -> ast.Module | None:
        path = self.root.joinpath(*name.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return ast.parse(file.read_text())
        return None

    def has(self, target: str) -> bool:
        owner, _, name = target.rpartition(".") if "." in target.partition(":")[2] else (target, "", "")
        return self.find(target) is not None or (bool(name) and self.has_attribute(owner, name))

    def find(self, target: str) -> tuple[str, Node] | None:
        """Return the module and the statement that define `module:path`, or None."""
        module, _, path = target.partition(":")
        first, *rest = path.split(".")
        found = self.global_name(module, first)
        for name in rest:
            found = found and self.member(*found, name)
        return found

    def global_name(self, module: str, name: str) -> tuple[str, Node] | None:
        tree = self.module(module)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.global_name(self.absolute(module, node), alias.name)
        for node in tree.body if tree else ():
            if defines(node, name):
                return module, node
        return None

    def absolute(self, module: str, node: ast.ImportFrom) -> str:
        """Return the module that an import in another one names."""
        if not node.level:
            return node.module or ""
        package = self.root.joinpath(*module.split("."), "__init__.py").exists()
        parts = module.split(".")[: len(module.split(".")) - node.level + package]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def member(self, module: str, node: Node, name: str) -> tuple[str, Node] | None:
        """Return what defines an attribute in a class, or in the class that an object is made of."""
        for owner, kind in self.classes(module, node):
            for part in kind.body:
                if defines(part, name):
                    return owner, part
        return None

    def classes(self, module: str, node: Node) -> list[tuple[str, ast.ClassDef]]:
        """Return a class and its bases, as far as they are in these sources."""
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            made = self.global_name(module, ast.unparse(node.value.func))
            return self.classes(*made) if made else []
        if not isinstance(node, ast.ClassDef):
            return []
        found = [(module, node)]
        for base in node.bases:
            name = base.value if isinstance(base, ast.Subscript) else base
            parent = self.global_name(module, ast.unparse(name))
            found += self.classes(*parent) if parent else []
        return found

    def has_attribute(self, target: str, name: str) -> bool:
        found = self.find(target)
        kinds = self.classes(*found) if found else []
        return any(
            defines(part, name)
            or (
                isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
                and any(sets(node, name) for node in ast.walk(part))
            )
            for _, kind in kinds
            for part in kind.body
        )

    def parameters(self, target: str) -> tuple[str, ...] | None:
        """Return a function's parameters, or a class's: those of `__init__`, or else its annotated fields."""
        found = self.find(target)
        if found is None:
            return None
        module, node = found
        if isinstance(node, ast.ClassDef):
            made = self.member(module, node, "__init__")
            if made is None:
                return fields([kind for _, kind in self.classes(module, node)])
            node = made[1]
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        given = node.args
        names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        return tuple(names[1:] if names[:1] in (["self"], ["cls"]) else names)

    def names(self, target: str) -> frozenset[str]:
        """Return the names and texts in a function."""
        found = self.find(target)
        used = set()
        for node in ast.walk(found[1]) if found else ():
            used |= {getattr(node, "id", None), getattr(node, "attr", None)}
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
            if isinstance(node, ast.ImportFrom):
                used |= {alias.name for alias in node.names}
        return frozenset(name for name in used if name)


def defines(node: ast.AST, name: str) -> bool:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name == name
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    return isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name


def sets(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == name


def fields(kinds: list[ast.ClassDef]) -> tuple[str, ...]:
    parts = (part for kind in kinds for part in kind.body)
    return tuple(
        part.target.id for part in parts if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    )
