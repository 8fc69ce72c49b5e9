"""Rows of a table by a condition in words: ``condition == 'uninfected' and t < 10``. Nothing is evaluated as code."""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from viscy_data.checks import near_matches
from viscy_data.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["matching_rows"]

_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FORM = "comparisons of a column and a value, joined by `and`, `or`, `not`, such as: condition == 'uninfected'"


def matching_rows(table: pd.DataFrame, condition: str, where: str) -> np.ndarray:
    """Find the rows of which a condition is true.

    Parameters
    ----------
    table : DataFrame
    condition : str
        Comparisons (``== != < <= > >= in``) of a column and a value or list of values, joined by ``and``, ``or``,
        ``not`` and brackets. A column whose name has spaces is written between backticks. Numbers and texts are
        compared as the column has them; a row without a value is in no comparison but ``!=`` and ``not in``.
    where : str
        The option or field that has the condition, for messages.

    Returns
    -------
    ndarray of bool, shape (N,)

    Raises
    ------
    InputError
        If it is no such condition, or names a column that is not there.
    """
    columns: dict[str, str] = {}

    def named(part: str) -> str:
        columns[f"column_{len(columns)}"] = part
        return f" column_{len(columns) - 1} "

    pieces = condition.split("`")
    text = "".join(named(piece) if number % 2 else piece for number, piece in enumerate(pieces)).strip()
    try:
        tree = ast.parse(text, mode="eval").body
        return _rows(tree, table, columns, where)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as err:
        if isinstance(err, InputError):
            raise
        raise InputError(where, found=condition, expected=_FORM) from err


def _rows(node: ast.expr, table: pd.DataFrame, columns: dict[str, str], where: str) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [
            _rows(part, table, columns, where) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)
        ]
        return (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce(parts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_rows(node.operand, table, columns, where)
    if not (isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.left, ast.Name)):
        raise ValueError("no comparison")
    column = _column(columns.get(node.left.id, node.left.id), table, where)
    return _compared(column, node.ops[0], ast.literal_eval(node.comparators[0]))


def _column(name: str, table: pd.DataFrame, where: str) -> pd.Series:
    if name not in table:
        raise InputError(where, found=f"the column {name}", expected=near_matches(name, map(str, table.columns)))
    column = table[name]
    return column.astype(object) if hasattr(column, "cat") else column


def _compared(column: pd.Series, operation: ast.cmpop, value: Any) -> np.ndarray:
    if isinstance(operation, ast.In | ast.NotIn):
        among = column.isin(list(value)).to_numpy(dtype=bool)
        return among if isinstance(operation, ast.In) else ~among
    found = _COMPARISONS[type(operation)](column, value)
    missing = column.isna().to_numpy(dtype=bool)
    found = found.fillna(False).to_numpy(dtype=bool)
    return found | missing if isinstance(operation, ast.NotEq) else found & ~missing
