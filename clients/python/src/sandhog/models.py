"""The decorator that makes an image with a model of a Python class with state."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, cast

from .default import default_client
from .errors import FunctionError
from .function_source import source_of_class
from .options import MODEL_OPTIONS, ModelOptions, check_names
from .plain_data import check_plain
from .program import run_program_here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .client import Sandhog

_C = TypeVar("_C")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


class Model(Generic[_C]):
    """A Python class whose one object a worker keeps loaded, and whose methods jobs call.

    The class becomes an image: the worker makes its object, calls `load(self)` once and then each
    method for many jobs. A method takes one input and returns plain data; one that yields streams
    its answer. All tenants share the object.

    Example:
        >>> with open("shouting.py", "w") as file:
        ...     _ = file.write('''
        ... import sandhog
        ...
        ... @sandhog.model(image="shout", summary="Makes texts loud")
        ... class Shout:
        ...     def load(self):
        ...         self.end = "!"
        ...
        ...     def shout(self, text: str) -> str:
        ...         return text.upper() + self.end
        ... ''')
        >>> from shouting import Shout
        >>> print(Shout.files()["image.toml"], end="")
        contract = 1
        name = "shout"
        summary = "Makes texts loud"
        <BLANKLINE>
        [serve.server]
        style = "python"
        model = "shout:Shout"
        method = "shout"
        methods = ["shout"]
    """

    def __init__(
        self,
        model: type[_C],
        image: str,
        *,
        summary: str | None = None,
        base: str = "python",
        packages: Sequence[str] = (),
        method: str | None = None,
        batched: Sequence[str] = (),
        serve: dict[str, int] | None = None,
        options: ModelOptions | None = None,
        client: Sandhog | None = None,
    ) -> None:
        if not _NAME.fullmatch(image):
            raise FunctionError(f"the image name {image!r} is not valid", hint="use a-z 0-9 . _ -")
        self._model = model
        self._image = image
        self._summary = summary or (inspect.getdoc(model) or image).splitlines()[0]
        self._base = base
        self._packages = list(packages)
        self._methods = _methods_of(model)
        self._method = method or self._methods[0]
        self._batched = list(batched)
        for name in (self._method, *self._batched):
            if name not in self._methods:
                raise FunctionError(
                    f"{model.__name__} has no method {name!r}",
                    hint=f"it has: {', '.join(self._methods)}",
                )
        self._serve = serve or {}
        self._options = options or {}
        check_names(self._options, MODEL_OPTIONS)
        self._client = client

    @property
    def local(self) -> type[_C]:
        """The class itself, for use without a sandbox.

        Example:
            >>> from shouting import Shout
            >>> shout = Shout.local()
            >>> shout.load()
            >>> shout.shout("hello")
            'HELLO!'
        """
        return self._model

    def files(self) -> dict[str, str]:
        """Returns the files of the image's folder, by path.

        Raises:
            FunctionError: The class uses something that the image cannot have.

        Example:
            >>> from shouting import Shout
            >>> sorted(Shout.files())
            ['Dockerfile', 'image.toml', 'model/shout.py']
        """
        module = re.sub(r"\W", "_", self._image)
        return {
            "Dockerfile": f"FROM sandhog/{self._base}\nCOPY model /srv/model\n",
            "image.toml": self._contract(module),
            f"model/{module}.py": source_of_class(self._model),
        }

    def write(self, images: str | Path) -> Path:
        """Writes the image's folder below a folder of images, and returns its path.

        Example:
            >>> from shouting import Shout
            >>> print(Shout.write("images"))
            images/shout
        """
        folder = Path(images) / self._image
        for path, text in self.files().items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        return folder

    def build(self, images: str | Path) -> None:
        """Writes the image's folder and builds the image with `sandhog images build`.

        Raises:
            ProgramError: The program `sandhog` is missing, or the build failed.

        Example:
            >>> from shouting import Shout
            >>> callable(Shout.build)
            True
        """
        self.write(images)
        environment = {"SANDHOG_SANDBOX_IMAGES_DIR": str(Path(images).resolve())}
        run_program_here(["images", "build", self._image], environment)

    def remote(self, client: Sandhog | None = None, **options: Unpack[ModelOptions]) -> _C:
        """Returns an object whose methods ask the model in the image.

        A call raises `OutcomeError` if its job ends without success.

        Example:
            >>> from shouting import Shout
            >>> shout = Shout.remote(timeout=5)
            >>> shout.shout(b"bytes")
            Traceback (most recent call last):
                ...
            sandhog.InvalidJobError: text is a bytes, which is not plain data
            hint: use None, bool, int, float, str, lists, and dicts whose keys are str
        """
        both = cast("ModelOptions", {**self._options, **options})

        def ask(method: str, input: Any) -> Any:
            one = client or self._client or default_client()
            return one.infer(self._image, input, method=method, **both).unwrap()

        parameters = {
            name: list(inspect.signature(getattr(self._model, name)).parameters)[1]
            for name in self._methods
        }
        return cast("_C", _RemoteModel(self._model.__name__, parameters, ask))

    def _contract(self, module: str) -> str:
        def text(value: Any) -> str:
            # JSON's strings, numbers and lists of them are TOML too.
            return json.dumps(value, ensure_ascii=False)

        lines = ["contract = 1", f"name = {text(self._image)}", f"summary = {text(self._summary)}"]
        if self._packages:
            lines += ["", "[python]", f"packages = {text(self._packages)}"]
        if self._serve:
            lines += ["", "[serve]", *(f"{key} = {text(v)}" for key, v in self._serve.items())]
        lines += [
            "",
            "[serve.server]",
            'style = "python"',
            f"model = {text(f'{module}:{self._model.__name__}')}",
            f"method = {text(self._method)}",
            f"methods = {text(self._methods)}",
        ]
        if self._batched:
            lines.append(f"batched = {text(self._batched)}")
        return "\n".join(lines) + "\n"


class _RemoteModel:
    """Stands for the object of the class in the image."""

    def __init__(
        self, name: str, parameters: dict[str, str], ask: Callable[[str, Any], Any]
    ) -> None:
        self._name = name
        self._parameters = parameters
        self._ask = ask

    def __getattr__(self, method: str) -> Any:
        parameter = self._parameters.get(method)
        if parameter is None:
            known = ", ".join(self._parameters)
            raise AttributeError(f"{self._name} has no method {method!r}; it has: {known}")

        def call(input: Any) -> Any:
            check_plain(parameter, input)
            return self._ask(method, input)

        return call


def model(
    *,
    image: str,
    summary: str | None = None,
    base: str = "python",
    packages: Sequence[str] = (),
    method: str | None = None,
    batched: Sequence[str] = (),
    concurrency: int | None = None,
    max_batch: int | None = None,
    batch_wait_ms: int | None = None,
    min_warm: int | None = None,
    idle_timeout_s: int | None = None,
    load_timeout_s: int | None = None,
    client: Sandhog | None = None,
    **options: Unpack[ModelOptions],
) -> Callable[[type[_C]], Model[_C]]:
    """Makes an image with a model of a class with state.

    Args:
        image: Name of the image.
        summary: One line about it; the first line of the class's docstring if None.
        base: Image on which it is built.
        packages: Lines of a requirements file.
        method: The method for calls that name none; the first of the class if None.
        batched: Methods that take a list of inputs and return a list of answers.
        concurrency: Number of concurrent calls.
        max_batch: Number of jobs in one call of a batched method.
        batch_wait_ms: Time for which the first job of a batch waits for others.
        min_warm: 1 to keep the model loaded.
        idle_timeout_s: Time for which a model without calls is kept.
        load_timeout_s: Limit of the time to load.
        client: The client of the calls; that of `default_client()` if None.
        options: Options of the calls; see `ModelOptions`.

    Raises:
        FunctionError: The class cannot be a model.

    Example:
        >>> @sandhog.model(image="counter", batched=["count"], max_batch=8)
        ... class Counter:
        ...     def count(self, texts: list[str]) -> list[int]:
        ...         return [len(text) for text in texts]
        >>> Counter.local().count(["a", "bb"])
        [1, 2]
    """
    serve = {
        "concurrency": concurrency,
        "max_batch": max_batch,
        "batch_wait_ms": batch_wait_ms,
        "min_warm": min_warm,
        "idle_timeout_s": idle_timeout_s,
        "load_timeout_s": load_timeout_s,
    }
    return lambda model: Model(
        model,
        image,
        summary=summary,
        base=base,
        packages=packages,
        method=method,
        batched=batched,
        serve={name: value for name, value in serve.items() if value is not None},
        options=options,
        client=client,
    )


def _methods_of(model: type[Any]) -> list[str]:
    """Returns the public methods of a class, without `load`."""
    names: list[str] = []
    for name, found in vars(model).items():
        if name.startswith("_") or name == "load" or not inspect.isfunction(found):
            continue
        parameters = list(inspect.signature(found).parameters.values())
        required = [one for one in parameters[1:] if one.default is inspect.Parameter.empty]
        if len(parameters) < 2 or len(required) > 1:
            raise FunctionError(
                f"the method {name} of {model.__name__} takes {len(parameters) - 1} inputs",
                hint="a method of a model takes one input: a list or a dict can hold several",
            )
        names.append(name)
    if not names:
        raise FunctionError(
            f"{model.__name__} has no public method", hint="define one that takes one input"
        )
    return names
