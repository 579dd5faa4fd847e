"""Declared once: options as plain dataclasses with bounds and documentation, checked by pydantic.

A layer declares its numbers in a class under `@options`, one line of documentation below each field:

    @options
    class Replay:
        size: NonNegative = 0
        \"\"\"Generated images to remember, per size.\"\"\"

`validated` makes one from what a file or a command line says, and names every mistake at once. What is built in Python
is not checked again, but for `__post_init__`, which raises `ValueError` where fields do not go together.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from annotated_types import GroupedMetadata
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, TypeAdapter
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError, ValidationError
from typing_extensions import dataclass_transform

from dfad_seg.common.errors import InputError, nearest, shortened

Positive = Annotated[int, Field(gt=0, le=65_536)]
"""Of things that are there at once, such as pixels of a side."""
Few = Annotated[int, Field(gt=0, le=256)]
"""Of networks."""
NonNegative = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
"""Of things that were counted: a float holds it."""
Iterations = Annotated[int, Field(gt=0, le=5_000_000)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Channels = Annotated[int, Field(ge=1, le=65_536)]
"""Of things that a layer has memory for: classes, channels, a stride."""


def _file_name(value: Any) -> Any:
    name = str(value) if isinstance(value, Path) else value
    if isinstance(name, str) and ("\0" in name or len(name) > 4000 or max(map(len, name.split("/"))) > 255):
        raise ValueError("no system takes such a file name: it holds a NUL, or is too long")
    return name


FileName = Annotated[str, BeforeValidator(_file_name)]
"""A path, which need not exist."""
Size = tuple[Positive, Positive]
"""[height, width] in pixels."""


def by(size: tuple[int, int]) -> str:
    """A size for a message, such as 96x128."""
    return f"{size[0]}x{size[1]}"


T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(kind: type[T]) -> type[T]:
    """A frozen dataclass of keyword arguments that takes no other keys; its fields' docstrings are their meaning."""
    made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(kind)
    made.__pydantic_config__ = {"extra": "forbid", "use_attribute_docstrings": True}
    return made


def validated(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """`values` as a checked instance of a class under `@options`.

    Raises:
        InputError: lists every wrong key and value; it begins with `where`.
    """
    try:
        return _adapter(kind).validate_python(values)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [_describe(problem, kind) for problem in error.errors(include_url=False)]
        raise InputError(f"{where}: " + "\n  ".join(["", *lines] if len(lines) > 1 else lines)) from None


def plain(value: Any) -> dict[str, Any]:
    """Options as plain Python that YAML and JSON hold; what is None is left out."""
    return _adapter(type(value)).dump_python(value, mode="json", exclude_none=True)  # type: ignore


def schema(kind: type) -> dict[str, Any]:
    """The JSON schema of a class under `@options`, with the meaning of each key, inherited ones included."""
    made = _adapter(kind).json_schema()
    for base in kind.__mro__[1:]:
        if dataclasses.is_dataclass(base):  # pydantic reads the docstrings of the class itself only
            for name, described in _adapter(base).json_schema()["properties"].items():
                if "description" in described:
                    made["properties"][name].setdefault("description", described["description"])
    return made


@dataclasses.dataclass(frozen=True)
class Kind(Generic[T]):
    """A line of a table of things that are chosen by name: what it takes, and what makes it from that."""

    options: type
    """A class under `@options`."""
    build: Callable[..., T]
    """`build(options, **context)`; the context is what all of the table's kinds are given."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A thing chosen by name in a config: the line of a table, and its checked options."""

    name: str
    options: Any

    def values(self) -> dict[str, Any]:
        """The options as plain Python; see `plain`."""
        return plain(self.options)


def section(table: Mapping[str, Kind[Any]], key: str) -> Any:
    """Of a `Chosen` in a config: its section chooses a line of `table` by `key`, and has its options beside that."""

    def check(values: Any) -> Chosen:
        if isinstance(values, Chosen):
            return values
        if not isinstance(values, Mapping):
            raise ValueError(f"a mapping with {key} and its options is needed, got {shortened(repr(values))}")
        rest = dict(values)
        name = rest.pop(key, None)
        if not isinstance(name, str) or name not in table:
            found = "is missing" if name is None else f"'{shortened(str(name))}' is unknown"
            raise ValueError(f"{key} {found}.{nearest(str(name), table)} Known: {', '.join(table)}")
        try:
            return Chosen(name, _adapter(table[name].options).validate_python(rest))
        except ValidationError as error:
            # Said here, where the names of the kind's options are known.
            named = [_named(problem, table[name].options) for problem in error.errors()]
            raise ValidationError.from_exception_data(error.title, named) from None

    def write(chosen: Chosen) -> dict[str, Any]:
        return {key: chosen.name, **chosen.values()}

    return _Together((PlainValidator(check), PlainSerializer(write, return_type=dict)))


@dataclasses.dataclass(frozen=True)
class _Together(GroupedMetadata):
    parts: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.parts)


def names_of(table: Collection[str], what: str) -> Any:
    """Of a mapping by names: each stands in the `table`; `what` is one of them, such as `prior`."""

    def known(values: dict[str, float]) -> dict[str, float]:
        for name in values:
            if name not in table:
                raise ValueError(f"unknown {what} '{name}'.{nearest(name, table)} Known: {', '.join(table)}")
        return values

    return AfterValidator(known)


def _named(problem: ErrorDetails, kind: type) -> InitErrorDetails:
    text = PydanticCustomError("described", _message(problem, kind))
    return {"type": text, "loc": problem["loc"], "input": problem["input"]}


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _describe(problem: ErrorDetails, kind: type) -> str:
    key, message = ".".join(str(part) for part in problem["loc"]), _message(problem, kind)
    end = "" if message.endswith((".", "?")) else "."
    return f"{key}: {message}{end}" if key else f"{message}{end}"


def _message(problem: ErrorDetails, kind: type) -> str:
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown key.{nearest(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1], kind))}"
    if problem["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return "this key is needed"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("value_error", "described"):
        return message
    return f"{message[:1].lower()}{message[1:]}, got {shortened(repr(problem['input']))}"


def _known_keys(parents: tuple[int | str, ...], kind: Any) -> list[str]:
    definition = schema(kind)
    known: dict[str, Any] = definition.get("$defs", {})
    for part in parents:
        text = str(definition.get("properties", {}).get(part, ""))
        name = next((name for name in known if f"'#/$defs/{name}'" in text), None)
        if name is None:
            return []
        definition = known[name]
    return list(definition.get("properties", {}))
