"""The decorator that runs a Python function in a sandbox."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from .async_client import CONCURRENCY, AsyncSandhog, value_or_exception
from .default import default_client
from .function_source import FunctionSource, check_function, source_of
from .options import JobOptions, check_names
from .plain_data import check_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .client import Sandhog
    from .result import Result
    from .sync_job import Job

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Function(Generic[_P, _R]):
    """A Python function whose calls run in a sandbox.

    Its source travels with each call, together with the functions of the same file that it calls,
    the imports and the constants that it uses. Arguments and the value travel as plain data, never
    as pickles; a tuple arrives as a list.

    Example:
        >>> with open("functions.py", "w") as file:
        ...     _ = file.write('''
        ... import math
        ... import sandhog
        ...
        ... @sandhog.function(timeout=20)
        ... def area(radius: float) -> float:
        ...     return round(math.pi * radius**2, 2)
        ... ''')
        >>> from functions import area
        >>> area(2.0)
        12.57
        >>> list(area.map([1.0, 2.0, 3.0]))
        [3.14, 12.57, 28.27]
    """

    def __init__(
        self, function: Callable[_P, _R], options: JobOptions, client: Sandhog | None = None
    ) -> None:
        check_names(options)
        for name in ("argv", "args", "input", "stdin", "language", "file", "expect_value"):
            if name in options:
                raise TypeError(f"a function has no option {name!r}")
        self._function = function
        self._options = options
        self._client = client
        check_function(function)
        self._signature = inspect.signature(function)
        self._source: FunctionSource | None = None
        functools.update_wrapper(cast("Any", self), function)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Runs the function in a sandbox and returns its value; the same as `remote`."""
        return self.remote(*args, **kwargs)

    @property
    def source(self) -> str:
        """The program that the sandbox runs.

        Raises:
            FunctionError: The function uses something that the sandbox cannot have.

        Example:
            >>> from functions import area
            >>> print(area.source.strip())
            from __future__ import annotations; import math
            <BLANKLINE>
            ...
            def area(radius: float) -> float:
                return round(math.pi * radius**2, 2)
            area(*input_data["args"], **input_data["kwargs"])
        """
        found = self._program()
        call = f'{found.name}(*input_data["args"], **input_data["kwargs"])'
        if found.is_async:
            call = f'__import__("asyncio").run({call})'
        return f"{found.code}{call}\n"

    def local(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Runs the function here, without a sandbox.

        Example:
            >>> from functions import area
            >>> area.local(1.0)
            3.14
        """
        return self._function(*args, **kwargs)

    def remote(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Runs the function in a sandbox and returns its value.

        Raises:
            FunctionError: The function uses something that the sandbox cannot have.
            InvalidJobError: An argument is not plain data.
            OutcomeError: The job ended without success.
            NoValueError: The value is not plain data.

        Example:
            >>> from functions import area
            >>> area.remote(radius=1.0)
            3.14
        """
        return self._value(self.run(*args, **kwargs))

    async def aremote(self, client: AsyncSandhog, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Runs the function with a client for event loops, and returns its value.

        Example:
            >>> from functions import area
            >>> async def main():
            ...     async with sandhog.AsyncSandhog() as client:
            ...         return await area.aremote(client, 1.0)
            >>> asyncio.run(main())
            3.14
        """
        options = {**self._job_options(), "input": self._input(args, kwargs)}
        return self._value(await client.run(self.source, **cast("JobOptions", options)))

    def run(self, *args: _P.args, **kwargs: _P.kwargs) -> Result:
        """Runs the function in a sandbox and returns the whole result.

        Example:
            >>> from functions import area
            >>> area.run(1.0).usage.cpu_ms < 20_000
            True
        """
        options = {**self._job_options(), "input": self._input(args, kwargs)}
        return self._own_client().run(self.source, **cast("JobOptions", options))

    def spawn(self, *args: _P.args, **kwargs: _P.kwargs) -> Job:
        """Submits a call and returns without waiting for it.

        Example:
            >>> from functions import area
            >>> job = area.spawn(1.0)
            >>> job.wait().unwrap()
            3.14
        """
        options = {**self._job_options(), "input": self._input(args, kwargs)}
        return self._own_client().submit(self.source, **cast("JobOptions", options))

    def map(
        self,
        inputs: Iterable[Any],
        *,
        return_exceptions: bool = False,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
    ) -> Iterator[_R]:
        """Calls the function with each input as its one argument, and yields the values in order.

        Memory is bounded for any number of inputs: see `Sandhog.imap`.

        Example:
            >>> from functions import area
            >>> list(area.map([1.0, 2.0]))
            [3.14, 12.57]
        """
        return self.starmap(
            ((one,) for one in inputs),
            return_exceptions=return_exceptions,
            concurrency=concurrency,
            progress=progress,
        )

    def starmap(
        self,
        inputs: Iterable[Iterable[Any]],
        *,
        return_exceptions: bool = False,
        concurrency: int = CONCURRENCY,
        progress: bool = False,
    ) -> Iterator[_R]:
        """Calls the function with each input as its arguments, and yields the values in order.

        Example:
            >>> from functions import area
            >>> list(area.starmap([(1.0,), (2.0,)]))
            [3.14, 12.57]
        """
        results = self._own_client().imap(
            self.source,
            (self._input(tuple(args), {}) for args in inputs),
            concurrency=concurrency,
            progress=progress,
            **self._job_options(),
        )
        for result in results:
            yield value_or_exception(result, return_exceptions=return_exceptions)

    def with_options(
        self, client: Sandhog | None = None, **options: Unpack[JobOptions]
    ) -> Function[_P, _R]:
        """Returns the function with other options, or another client.

        Example:
            >>> from functions import area
            >>> area.with_options(tenant="acme", timeout=5)(1.0)
            3.14
        """
        both = cast("JobOptions", {**self._options, **options})
        return Function(self._function, both, client or self._client)

    def _program(self) -> FunctionSource:
        # Found at the first call, when the module of the function is complete.
        if self._source is None:
            self._source = source_of(self._function, _function_of)
        return self._source

    def _job_options(self) -> JobOptions:
        return cast("JobOptions", {**self._options, "file": self._program().file})

    def _input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = self._signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            check_plain(name, value)
        return {"args": list(bound.args), "kwargs": bound.kwargs}

    def _own_client(self) -> Sandhog:
        return self._client or default_client()

    def _value(self, result: Result) -> _R:
        return cast("_R", value_or_exception(result, return_exceptions=False))


@overload
def function(function: Callable[_P, _R], /) -> Function[_P, _R]: ...
@overload
def function(
    *, client: Sandhog | None = None, **options: Unpack[JobOptions]
) -> Callable[[Callable[_P, _R]], Function[_P, _R]]: ...
def function(
    function: Callable[..., Any] | None = None,
    /,
    *,
    client: Sandhog | None = None,
    **options: Any,
) -> Any:
    """Makes the calls of a Python function run in a sandbox.

    Args:
        function: The function, if the decorator has no options.
        client: The client; that of `default_client()` if None.
        options: See `JobOptions`.

    Raises:
        FunctionError: The object is no Python function.

    Example:
        >>> with open("words.py", "w") as file:
        ...     _ = file.write('''
        ... import sandhog
        ...
        ... @sandhog.function
        ... def count(text: str) -> dict[str, int]:
        ...     words = text.split()
        ...     return {word: words.count(word) for word in words}
        ... ''')
        >>> from words import count
        >>> count("to be or not to be")
        {'to': 2, 'be': 2, 'or': 1, 'not': 1}
    """
    own = cast("JobOptions", options)
    if function is not None:
        return Function(function, own, client)

    def decorate(function: Callable[..., Any]) -> Function[..., Any]:
        return Function(function, own, client)

    return decorate


def _function_of(found: Any) -> Any:
    """Returns the function of an object that the decorator made, or None."""
    is_decorated = isinstance(found, Function)
    return getattr(cast("Any", found), "__wrapped__", None) if is_decorated else None
