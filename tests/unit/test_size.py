"""No file over 500 lines, no function over 80: what does not fit into a sitting is split.

An exception needs a line in the tables below with its reason, and leaves them when it is no longer needed.
"""

import ast
import pathlib
import textwrap

import pytest

from tests.unit.source_tree import bash_files, project_files, python_files, relative

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80

FILE_EXCEPTIONS: dict[str, str] = {}  # "seif_nemo/x.py": "reason"
FUNCTION_EXCEPTIONS: dict[str, str] = {}  # "seif_nemo/x.py::Class.method": "reason"


def line_count(path: pathlib.Path) -> int:
    return len(path.read_text().splitlines())


def function_lengths(source: str) -> dict[str, int]:
    """Lines of each function, its docstring and decorators included, by qualified name."""
    lengths: dict[str, int] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    first = min([child.lineno, *(item.lineno for item in child.decorator_list)])
                    assert child.end_lineno is not None
                    lengths[name] = child.end_lineno - first + 1
                visit(child, f"{name}.")
            else:
                visit(child, prefix)

    visit(ast.parse(source), "")
    return lengths


def test_length_counts_decorators_and_nested_functions() -> None:
    source = textwrap.dedent("""\
        class A:
            @property
            def f(self):
                def g():
                    return 1
                return g
    """)
    assert function_lengths(source) == {"A.f": 5, "A.f.g": 2}


def test_files_are_short() -> None:
    code = {*python_files(), *bash_files()} | {path for path in project_files() if path.suffix in {".yaml", ".toml"}}
    long = {relative(path): line_count(path) for path in code if line_count(path) > MAX_FILE_LINES}
    assert set(long) == set(FILE_EXCEPTIONS), f"over {MAX_FILE_LINES} lines: {long}; listed: {sorted(FILE_EXCEPTIONS)}"


def test_functions_are_short() -> None:
    long = {
        f"{relative(path)}::{name}": lines
        for path in python_files()
        for name, lines in function_lengths(path.read_text()).items()
        if lines > MAX_FUNCTION_LINES
    }
    assert set(long) == set(FUNCTION_EXCEPTIONS), (
        f"over {MAX_FUNCTION_LINES} lines: {long}; listed: {sorted(FUNCTION_EXCEPTIONS)}"
    )


@pytest.mark.parametrize("table", [FILE_EXCEPTIONS, FUNCTION_EXCEPTIONS], ids=["files", "functions"])
def test_exceptions_have_a_reason(table: dict[str, str]) -> None:
    assert [name for name, reason in table.items() if len(reason.split()) < 4] == []
