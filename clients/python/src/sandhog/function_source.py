"""The source of a function with all that it uses, as one program for the sandbox.

Functions stay on the lines that they have in their file, so that tracebacks name the lines that the
caller sees in an editor. Imports and constants are on one line before them.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import symtable
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

from .errors import FunctionError

_CONSTANT_TYPES = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True, slots=True)
class FunctionSource:
    """A program that defines a function.

    Attributes:
        name: Name of the function.
        code: The program.
        file: Name of the file of the function.
        is_async: True if the function is `async def`.
    """

    name: str
    code: str
    file: str
    is_async: bool


@dataclass(frozen=True, slots=True)
class _User:
    """The function or class that uses a global name."""

    name: str
    module: str
    scope: dict[str, Any]


@dataclass(slots=True)
class _Parts:
    """The parts of the program that were found so far."""

    file: str
    imports: dict[str, str] = field(default_factory=dict[str, str])
    constants: dict[str, str] = field(default_factory=dict[str, str])
    functions: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])


def source_of(function: Any, unwrap: Any) -> FunctionSource:
    """Returns the program for a function.

    The program has the function without its decorators, the functions of the same file that it
    calls, imports of the modules and names that it uses, and constants. `unwrap` returns the
    function of an object that a decorator made, or None.

    Raises:
        FunctionError: The function uses something that the sandbox cannot have.
    """
    check_function(function)
    parts = _Parts(inspect.getfile(function))
    _add_function(parts, function, unwrap)
    return FunctionSource(
        name=function.__name__,
        code=_program(parts),
        file=_file_name(parts.file),
        is_async=inspect.iscoroutinefunction(function),
    )


def check_function(function: Any) -> None:
    """Checks that an object is a function that can have a source and one value.

    Raises:
        FunctionError: It is not.
    """
    if not isinstance(function, FunctionType):
        name = getattr(function, "__name__", repr(function))
        raise FunctionError(
            f"{name} is not a function that is written in Python",
            hint="wrap it in a function of your own",
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise FunctionError(
            f"{function.__name__} is a generator, which has no single value",
            hint="return a list instead",
        )
    if function.__name__ == "<lambda>":
        raise FunctionError("a lambda has no source of its own", hint="define it with def")


def source_of_class(model: Any) -> str:
    """Returns a module that defines a class, with the functions, imports and constants it uses.

    Raises:
        FunctionError: The class uses something that the image cannot have.
    """
    if "<locals>" in model.__qualname__:
        raise FunctionError(
            f"{model.__name__} is defined inside a function",
            hint="define it at the top of a module",
        )
    try:
        lines, _ = inspect.getsourcelines(model)
        parts = _Parts(inspect.getfile(model))
    except (OSError, TypeError) as error:
        raise FunctionError(
            f"the source of {model.__name__} is not available", hint="define it in a file"
        ) from error
    text = textwrap.dedent("".join(lines))
    statement = ast.parse(text).body[0]
    if not isinstance(statement, ast.ClassDef):
        raise FunctionError(f"{model.__name__} is not defined with class")
    body = "\n".join(text.splitlines()[statement.lineno - 1 :])
    scope = sys.modules[model.__module__].__dict__
    for name in _global_names(body):
        _add_global(parts, _User(model.__name__, model.__module__, scope), name, _no_wrapper)
    blocks = ["\n".join(parts.imports.values())]
    blocks.append("\n".join(f"{name} = {value}" for name, value in parts.constants.items()))
    blocks.extend(text for _, text in sorted(parts.functions.values()))
    blocks.append(body)
    head = "from __future__ import annotations"
    return "\n\n\n".join([head, *(block for block in blocks if block)]) + "\n"


def _no_wrapper(_found: Any) -> None:
    return None


def _add_function(parts: _Parts, function: FunctionType, unwrap: Any) -> None:
    if function.__name__ in parts.functions:
        return
    if function.__code__.co_freevars:
        names = ", ".join(function.__code__.co_freevars)
        raise FunctionError(
            f"{function.__name__} uses {names} of the function around it",
            hint="pass it as an argument, or define the function at the top of a module",
        )
    line, text = _text(function)
    parts.functions[function.__name__] = (line, text)
    user = _User(function.__name__, function.__module__, function.__globals__)
    for name in _global_names(text):
        _add_global(parts, user, name, unwrap)


def _text(function: FunctionType) -> tuple[int, str]:
    """Returns the first line of the `def` and its text without decorators."""
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError) as error:
        raise FunctionError(
            f"the source of {function.__name__} is not available",
            hint="define it in a file or a notebook, not in exec() or python -c",
        ) from error
    text = textwrap.dedent("".join(lines))
    tree = ast.parse(text)
    statement = tree.body[0]
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        raise FunctionError(f"{function.__name__} is not defined with def")
    body = text.splitlines()[statement.lineno - 1 :]
    return first + statement.lineno - 1, "\n".join(body)


def _global_names(text: str) -> list[str]:
    """Returns the global names that the code of a function uses. Annotations do not count."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    plain = ast.unparse(ast.fix_missing_locations(tree))
    names: dict[str, None] = {}

    def collect(table: symtable.SymbolTable) -> None:
        is_module = table.get_type() == "module"
        for symbol in table.get_symbols():
            used = symbol.is_referenced() and (
                symbol.is_global() or (is_module and not symbol.is_assigned())
            )
            if used and not (is_module and symbol.is_namespace()):
                names[symbol.get_name()] = None
        for child in table.get_children():
            collect(child)

    collect(symtable.symtable(plain, "function", "exec"))
    return list(names)


def _add_global(parts: _Parts, user: _User, name: str, unwrap: Any) -> None:
    if name not in user.scope:
        if hasattr(builtins, name) or name in ("display", "input_data", "__file__"):
            return
        raise FunctionError(
            f"{user.name} uses the name {name}, which is not defined",
            hint="import or define it before the function, or inside it",
        )
    value = user.scope[name]
    inner = unwrap(value) if not isinstance(value, FunctionType) else value
    if isinstance(inner, FunctionType) and _same_file(inner, parts.file):
        if inner.__name__ != name:
            raise FunctionError(
                f"{user.name} uses {name}, another name of {inner.__name__}",
                hint=f"call it {inner.__name__}",
            )
        _add_function(parts, inner, unwrap)
    elif isinstance(value, ModuleType):
        parts.imports[name] = _import_module(value, name)
    elif _is_constant(value):
        parts.constants[name] = repr(value)
    else:
        parts.imports[name] = _import_name(user, value, name)


def _same_file(function: FunctionType, file: str) -> bool:
    try:
        return inspect.getfile(function) == file
    except TypeError:
        return False


def _is_constant(value: Any) -> bool:
    if type(value) in (list, tuple, set, frozenset):
        return all(_is_constant(item) for item in cast("list[Any]", value))
    if type(value) is dict:
        items = cast("dict[Any, Any]", value).items()
        return all(_is_constant(key) and _is_constant(item) for key, item in items)
    return type(value) in _CONSTANT_TYPES


def _import_module(module: ModuleType, name: str) -> str:
    full = module.__name__
    return f"import {full}" if full == name else f"import {full} as {name}"


def _import_name(user: _User, value: Any, name: str) -> str:
    """Returns the import of a name of a module that the sandbox can have too."""
    module = getattr(value, "__module__", None)
    own = getattr(value, "__name__", None)
    found = sys.modules.get(module) if isinstance(module, str) else None
    is_importable = (
        isinstance(own, str)
        and found is not None
        and getattr(found, own, None) is value
        and module not in ("__main__", user.module)
    )
    if not is_importable:
        raise FunctionError(
            f"{user.name} uses {name}, a {type(value).__name__} that is no module, no "
            "function of the same file and no constant",
            hint="pass it as an argument, or make it inside the function",
        )
    return f"from {module} import {own}" + ("" if own == name else f" as {name}")


def _program(parts: _Parts) -> str:
    head = ["from __future__ import annotations", *parts.imports.values()]
    head += [f"{name} = {text}" for name, text in parts.constants.items()]
    functions = sorted(parts.functions.values())
    lines: list[str] = ["; ".join(head)]
    for line, text in functions:
        # A function of the first line of a notebook's cell follows the head.
        lines += [""] * (line - 1 - len(lines))
        lines += text.splitlines()
    return "\n".join(lines) + "\n"


def _file_name(path: str) -> str:
    name = Path(path).name
    is_plain = name.endswith(".py") and name.replace("_", "").replace(".", "").isalnum()
    return name if is_plain and name.isascii() else "function.py"
