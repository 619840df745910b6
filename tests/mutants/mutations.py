"""Which changes a Python file could have suffered: each a span of its text and what would stand there.

The text is edited where `ast` says that a node stands, so all else keeps its form, and the file's other lines are
what they were.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, NamedTuple

_COMPARED: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_COMPUTED: Final[dict[type[ast.operator], str]] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
_LOGS: Final = ("_LOG", "logging", "print", "_say")
_FAR: Final = 1_000  # a constant of a module is changed by so much: by one, nobody would want to notice


class Mutant(NamedTuple):
    """A change of one file: text[begin:end], bytes in UTF-8, becomes `new`."""

    path: str
    line: int
    begin: int
    end: int
    new: str
    what: str  # the kind of change

    def applied(self, text: bytes) -> bytes:
        return text[: self.begin] + self.new.encode() + text[self.end :]


class _Finder(ast.NodeVisitor):
    def __init__(self, path: str, text: bytes) -> None:
        self.path, self.text = path, text
        self.found: list[Mutant] = []
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._inside = 0  # functions around

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(node.end_lineno, node.end_col_offset)

    def _add(self, node: ast.expr | ast.stmt, span: tuple[int, int], new: str, what: str) -> None:
        self.found.append(Mutant(self.path, node.lineno, *span, new, what))

    def _between(self, left: ast.expr, right: ast.expr, sign: str, new: str, what: str) -> None:
        """Replace the operator between two operands, which stands there once beside brackets and blanks."""
        begin, end = self._span(left)[1], self._span(right)[0]
        at = self.text.find(sign.encode(), begin, end)
        if at >= 0 and b"#" not in self.text[begin:end]:
            self._add(left, (at, at + len(sign)), new, what)

    # ------------------------------------------------------------------ expressions

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, sign, right in zip(
            [node.left, *node.comparators], node.ops, node.comparators, strict=False
        ):
            old = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
            words = {ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}
            self._between(left, right, (old | words)[type(sign)], _COMPARED[type(sign)], "compare")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _COMPUTED and not isinstance(node.left, ast.Constant | ast.JoinedStr):
            signs = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%"}
            bits: dict[type[ast.operator], str] = {ast.BitOr: "|", ast.BitAnd: "&"}
            self._between(
                node.left, node.right, (signs | bits)[type(node.op)], _COMPUTED[type(node.op)], "compute"
            )
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, old, new, "and/or")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add(node, (self._span(node)[0], self._span(node.operand)[0]), "", "not")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if node.value is True or node.value is False:
            self._add(node, self._span(node), str(not node.value), "constant")
        elif isinstance(node.value, int | float):
            far = f"({node.value!r} * {_FAR})" if node.value else "1"
            self._add(node, self._span(node), f"({node.value!r} + 1)" if self._inside else far, "constant")

    # ------------------------------------------------------------------ statements

    def visit_If(self, node: ast.If) -> None:
        names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
        if "TYPE_CHECKING" in names:
            return
        begin, end = self._span(node.test)
        self._add(node, (begin, end), f"not ({self.text[begin:end].decode()})", "if")
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._add(node, self._span(node.value), "None", "return")
        self.generic_visit(node)

    def _drop(self, node: ast.stmt) -> None:
        if self._inside:
            self._add(node, self._span(node), "pass", "statement")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # a docstring
        if isinstance(node.value, ast.Call):
            called = node.value.func
            root = called.value if isinstance(called, ast.Attribute) else called
            if isinstance(root, ast.Name) and root.id in _LOGS:
                return
            self._drop(node)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._drop(node)
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._drop(node)  # and nothing in it: the words of an error are no promise

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._drop(node)
        self.generic_visit(node)

    # ------------------------------------------------------------------ what is left alone

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        types = isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
        if node.value is not None and not types:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:  # what is frozen or has slots is no promise
            self.visit(part)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name == "__repr__":
            return
        self._inside += 1
        for part in (*node.body, *node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self.visit(part)
        self._inside -= 1

    def visit_Assert(self, _: ast.Assert) -> None:
        return  # our own: a test that fails by it is right

    def visit_JoinedStr(self, _: ast.JoinedStr) -> None:
        return


def mutants(path: str, text: bytes) -> list[Mutant]:
    """All single changes of a file, in order of their place. A few may leave what does not parse: see `parses`."""
    finder = _Finder(path, text)
    finder.visit(ast.parse(text, path))
    return sorted(set(finder.found), key=lambda mutant: (mutant.begin, mutant.new))


def parses(text: bytes) -> bool:
    """Whether this is Python at all."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def changed_line(text: bytes, mutant: Mutant) -> Iterator[str]:
    """The line before and after the change, for people and for the list of survivors."""
    for content, end in ((text, mutant.end), (mutant.applied(text), mutant.begin + len(mutant.new.encode()))):
        first = content.rfind(b"\n", 0, mutant.begin) + 1
        last = content.find(b"\n", end)
        yield " ".join(content[first : last if last >= 0 else None].decode().split())
