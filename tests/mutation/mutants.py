"""Mutants of a source file: each is the file with one constant, sign, reduction, order or condition changed."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
    ast.Mod: ast.Add, ast.MatMult: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
NAMES = {
    "mean": "sum", "sum": "mean", "min": "max", "max": "min", "any": "all", "all": "any", "softmax": "log_softmax",
    "log_softmax": "softmax", "logsigmoid": "sigmoid", "square": "abs", "relu": "sigmoid", "zeros": "ones",
    "row_sums": "row_means", "row_means": "row_sums", "FORGET": "RETAIN", "RETAIN": "FORGET", "REFUSAL": "RETAIN",
    "MASKED": "FORGET", "sorted": "list", "argmin": "argmax", "argmax": "argmin", "trace": "sum", "cumsum": "cumprod",
    "sqrt": "abs", "exp": "abs", "log": "abs",
}  # fmt: skip
"""Functions and constants that stand for one another."""
SYMMETRIC = {"max", "min", "torch.maximum", "torch.minimum", "torch.equal"}
"""Functions of two arguments in any order."""
NOTHING = 1e-9
"""What is smaller only keeps a divisor from zero: twice as much of it is the same, so it becomes 1."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change."""

    name: str
    """Where and what, without line numbers: `FUNCTION: BEFORE -> AFTER`, and a number where that occurs again."""
    line: int
    """Line of the change."""
    source: str
    """The whole file with the change."""


def mutants_of(path: Path) -> list[Mutant]:
    """Return the mutants of a file, in the order of its lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    seen: Counter[str] = Counter()
    found = []
    for owner, node in _places(tree, ""):
        for change in _changes(node):
            changed = change()
            before, after = _words(node), _words(changed)
            if before == after:
                continue
            name = f"{owner}: {before} -> {after}"
            seen[name] += 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
            found.append(Mutant(name, getattr(node, "lineno", 0), ast.unparse(_replaced(tree, node, changed))))
    return found


def _words(node: ast.AST) -> str:
    return " ".join((f"if {ast.unparse(node.test)}" if isinstance(node, ast.If) else ast.unparse(node)).split())


def _places(node: ast.AST, owner: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield every node that may be changed, with the function or class that it is in."""
    for name, value in ast.iter_fields(node):
        if name in ("decorator_list", "annotation", "returns") or _only_guards(node):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_talk(child):
                continue
            inner = f"{owner}.{child.name}".lstrip(".") if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else owner
            yield inner or "module", child
            yield from _places(child, inner)


def _only_guards(node: ast.AST) -> bool:
    """Return whether a node is `strict=True`, which only asks for sequences of one length."""
    return isinstance(node, ast.keyword) and node.arg == "strict"


def _is_talk(node: ast.AST) -> bool:
    """Return whether a node is a docstring, an import, or what is only there for type checkers."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _changes(node: ast.AST) -> list[Callable[[], ast.AST]]:
    makers = (_constant, _operation, _condition, _call, _name)
    return [change for maker in makers for change in maker(node)]


def _with(node: ast.AST, **fields: object) -> Callable[[], ast.AST]:
    def change() -> ast.AST:
        made = copy.copy(node)
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    return change


def _constant(node: ast.AST) -> list[Callable[[], ast.AST]]:
    if not isinstance(node, ast.Constant) or isinstance(node.value, (str, bytes)) or node.value is None:
        return []
    if isinstance(node.value, bool):
        return [_with(node, value=not node.value)]
    if isinstance(node.value, float) and node.value:
        return [_with(node, value=node.value * 2 if abs(node.value) > NOTHING else 1.0)]
    return [_with(node, value=node.value + 1)] if isinstance(node.value, (int, float)) else []


def _operation(node: ast.AST) -> list[Callable[[], ast.AST]]:
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return [_with(node, op=BINARY[type(node.op)]())]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not, ast.Invert)):
        return [lambda: node.operand]
    if isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
        return [_with(node, op=BINARY[type(node.op)]())]
    return []


def _condition(node: ast.AST) -> list[Callable[[], ast.AST]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        return [_with(node, ops=[COMPARE[type(node.ops[0])]()])]
    if isinstance(node, ast.BoolOp):
        return [_with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())]
    if isinstance(node, (ast.If, ast.IfExp)):
        return [_with(node, test=ast.UnaryOp(op=ast.Not(), operand=node.test))]
    return []


def _call(node: ast.AST) -> list[Callable[[], ast.AST]]:
    """Arguments in another order, and `min=` for `max=`."""
    if not isinstance(node, ast.Call):
        return []
    found = []
    plain = not any(isinstance(argument, ast.Starred) for argument in node.args)
    if len(node.args) == 2 and plain and ast.unparse(node.func) not in SYMMETRIC:
        found.append(_with(node, args=node.args[::-1]))
    for place, keyword in enumerate(node.keywords):
        if keyword.arg in ("min", "max"):
            other = ast.keyword(arg="max" if keyword.arg == "min" else "min", value=keyword.value)
            found.append(_with(node, keywords=[*node.keywords[:place], other, *node.keywords[place + 1 :]]))
    return found


def _name(node: ast.AST) -> list[Callable[[], ast.AST]]:
    """Another function or constant; a subscript left out."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in NAMES:
        return [_with(node, attr=NAMES[node.attr])]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in NAMES:
        return [_with(node, id=NAMES[node.id])]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        return [lambda: node.value]
    return []


def _replaced(tree: ast.Module, old: ast.AST, new: ast.AST) -> ast.Module:
    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return new if node is old else self.generic_visit(node)

    # Only the nodes on the way to the change are new, so the tree stays as it was for the next mutant.
    made = Replace().visit(_shallow(tree, old))
    assert isinstance(made, ast.Module)
    return made


def _shallow(node: ast.AST, target: ast.AST) -> ast.AST:
    """Copy the nodes above a target, so that replacing it there leaves the original alone."""
    if node is target or not any(child is target for child in ast.walk(node)):
        return node
    made = copy.copy(node)
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            setattr(made, name, [_shallow(item, target) if isinstance(item, ast.AST) else item for item in value])
        elif isinstance(value, ast.AST):
            setattr(made, name, _shallow(value, target))
    return made
