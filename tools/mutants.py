"""Tries the checks on wrong answers that nobody wrote: right ones with one small change each.

python tools/mutants.py [NAME …]    of these exercises only; prints what a check lets pass

A change is another operator, number, name, order of arguments or comparison, or a part left out.
What passes is either as right as before (an order that does not matter, say) or a hole in the check.
"""

import ast
import contextlib
import copy
import importlib
import io
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from diffusion_lib import checks  # noqa: E402

OPERATORS = {ast.Add: ast.Sub, ast.Mult: ast.Div, ast.Lt: ast.LtE, ast.Gt: ast.GtE}
OPERATORS |= {ast.Eq: ast.NotEq, ast.And: ast.Or, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div}
OPERATORS |= {new: old for old, new in [*OPERATORS.items()][:6]}
TWINS = [("alpha", "sigma"), ("t", "s"), ("eps", "z"), ("x0", "eps"), ("cond", "null"), ("h", "w")]
TWINS += [("parameters", "buffers"), ("query", "key"), ("cos", "sin"), ("min", "max")]
OTHER = dict(TWINS) | {b: a for a, b in TWINS}


def changes(node: ast.AST) -> Iterator[ast.AST | None]:
    """What may stand in the place of a node; None: nothing."""
    other = copy.deepcopy(node)
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign() if type(node.op) in OPERATORS:
            other.op = OPERATORS[type(node.op)]()
            yield other
            if isinstance(node, ast.BinOp):
                yield from (node.left, node.right)
        case ast.Compare() if type(node.ops[0]) in OPERATORS:
            other.ops[0] = OPERATORS[type(node.ops[0])]()
            yield other
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield from map(ast.Constant, (value + 1, value - 1))
        case ast.Constant(value=float(value)):
            yield from map(ast.Constant, (value * 2, value / 2))
        case ast.UnaryOp():
            yield node.operand
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.If():
            other.test = ast.UnaryOp(ast.Not(), other.test)
            yield from (other, None)
        case ast.Call(func=ast.Attribute()):
            yield node.func.value  # x for x.f()
        case ast.Assign() | ast.AugAssign() | ast.Raise():
            yield None
        case ast.Expr() if not isinstance(node.value, ast.Constant):  # a docstring
            yield None
    read = not isinstance(getattr(node, "ctx", None), ast.Store)
    for parts in ("args", "elts"):
        if read and isinstance(node, ast.Call | ast.Tuple | ast.List):
            if len(things := getattr(node, parts, [])) > 1:
                other = copy.deepcopy(node)
                setattr(other, parts, [things[1], things[0], *things[2:]])
                yield other
    if read and (twin := OTHER.get(getattr(node, "id", getattr(node, "attr", None)))):
        name = isinstance(node, ast.Name)
        yield ast.Name(twin, node.ctx) if name else ast.Attribute(node.value, twin, node.ctx)


def replaced(tree: ast.Module, index: int, new: ast.AST | None) -> ast.Module:
    """The tree with its node number `index`, as ast.walk counts, replaced."""
    tree = copy.deepcopy(tree)
    target = next(node for i, node in enumerate(ast.walk(tree)) if i == index)

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is target:
                return ast.Pass() if new is None else copy.deepcopy(new)
            return self.generic_visit(node)

    return ast.fix_missing_locations(Replace().visit(tree))


def first_line(node: ast.AST | None) -> str:
    return ast.unparse(node).splitlines()[0] if node else "(nothing)"


def parts_of(answer: Any) -> list[str]:
    return [getattr(part, "__name__", "") for part in (answer if isinstance(answer, tuple) else (answer,))]  # fmt: skip


def mutants(module: ModuleType) -> Iterator[tuple[str, list]]:
    """(what was changed, the right answers of the module that have this change)."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    listed = {name for answer in module.RIGHT for name in parts_of(answer)}
    whose = {}  # node: the answer, or the helper of answers, that it is in
    for part in tree.body:
        if isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name in listed:
            whose |= {id(n): part.name for n in ast.walk(part)}
    for arguments in (n for n in ast.walk(tree) if isinstance(n, ast.arguments)):
        for default in (n for d in arguments.defaults for n in ast.walk(d)):
            whose.pop(id(default), None)  # the check gives all arguments
    known = {ast.unparse(tree)}
    for index, node in enumerate(ast.walk(tree)):
        for new in changes(node) if id(node) in whose else ():
            text = ast.unparse(mutant := replaced(tree, index, new))
            if text in known:
                continue
            known.add(text)
            said = f"line {getattr(node, 'lineno', 0)}: {first_line(node)}  ->  {first_line(new)}"
            space: dict = {"__name__": module.__name__}
            with contextlib.suppress(Exception):
                exec(compile(mutant, f"<{said}>", "exec"), space)
                yield said, [a for a in space["RIGHT"] if whose[id(node)] in parts_of(a)]


def verdict(check, right: list) -> str:
    for answer in right:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                check(*(answer if isinstance(answer, tuple) else (answer,)))
        except checks.Wrong as wrong:
            return "named" if wrong.mistake else "refused"
    return "passed"


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    began, total = time.perf_counter(), Counter()
    for check in (c for c in checks.ALL if not names or c.__name__ in names):
        module, count = importlib.import_module(f"answers.{check.__name__}"), Counter()
        for said, right in mutants(module):
            count[given := verdict(check, right)] += 1
            if given == "passed":
                print(f"   {said}")
        total += count
        print(f"{check.about.number:02d} {check.__name__:<18} {dict(count)}", flush=True)
    print(f"{total.total()} mutants: {dict(total)}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
