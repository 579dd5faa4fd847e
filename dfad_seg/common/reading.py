"""One bounded reader for each format of text: no tag runs code, no alias fills the memory, no key stands twice."""

import errno
import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from dfad_seg.common.errors import InputError, explained, instead_of, printable, shortened

MAX_YAML = 2**20
"""Characters; longer texts are no configs."""
MAX_VALUES = 100_000
"""Values and keys in a YAML text, each counted as often as aliases repeat it."""
MAX_JSON = 2**26
"""Bytes of a JSON file of ours; data sets' files may say more."""


def open_regular(path: str | Path) -> IO[bytes]:
    """A regular file to read; an OSError for all else: a pipe would be waited for, and a device has no end."""
    handle = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return handle


def check_inside(name: str, where: str) -> None:
    """`InputError` unless `name` is a relative path that stays below the folder it is relative to."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise InputError(f"{where} names '{printable(name)}', which is not a file below its folder.")


def file_hash(path: str | Path, kind: str = "sha256") -> str:
    """A checksum (sha256, md5) of a file's bytes, in hexadecimal; `InputError` for one that cannot be read."""
    made = hashlib.new(kind, usedforsecurity=False)
    try:
        with open_regular(path) as handle:
            while block := handle.read(1 << 20):
                made.update(block)
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be read: {error.strerror}.") from None
    return made.hexdigest()


@contextmanager
def open_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive; whatever a damaged one makes of its reader is an InputError."""
    what = f"{printable(path)} is a damaged archive"
    with explained(what, "Copy it again."), open_regular(path) as handle, zipfile.ZipFile(handle) as archive:
        yield archive


def read_bytes(path: str | Path, what: str, *, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit`; an InputError that begins with `what` for all else."""
    try:
        with open_regular(path) as handle:
            data = handle.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        found = instead_of(path) if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"{what}: cannot read {printable(path)}: {reason}.{found}") from None
    if len(data) > limit:
        raise InputError(f"{what}: {printable(path)} has more than {limit} bytes. Is it the right file?")
    return data


def read_text(path: str | Path, what: str, *, limit: int) -> str:
    """A text file of at most `limit` bytes, UTF-8 with or without a byte order mark.

    Raises:
        InputError: it cannot be read, is no regular file, is longer, or is no text; it begins with `what`.
    """
    try:
        return read_bytes(path, what, limit=limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what}: {printable(path)} is no text ({error.reason}). Is it the right file?") from None


def read_json(path: str | Path, what: str, *, limit: int = MAX_JSON) -> Any:
    """The plain values of a JSON file; raises InputError as `read_text` does, and for what is no JSON."""
    with explained(f"{what}: {printable(path)} is no valid JSON"):
        return json.loads(read_text(path, what, limit=limit))


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML takes the last of equal keys, so that the others would silently be without effect."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key '{key.value}' is there twice", key.start_mark
                    )
                names.add(key.value)
        return node


def parse_yaml(text: str, what: str) -> Any:
    """The plain values in a YAML text; no tag of it runs code, and aliases cannot make it large.

    Raises:
        InputError: not YAML, a key twice in one mapping, longer than `MAX_YAML`, or more than `MAX_VALUES` values; it
            begins with `what`.
    """
    if len(text) > MAX_YAML:
        raise InputError(f"{what} has {len(text)} characters, and at most {MAX_YAML} are read. Is it the right file?")
    try:
        loader = _UniqueKeys(text)
        node = loader.get_single_node()
        check_values(node, what)  # before merged keys (<<) can repeat what they name
        values = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        # ValueError: a date or a number that is none.
        raise InputError(f"{what} is not valid YAML: {shortened(' '.join(str(error).split()), 300)}") from None
    check_values(values, what)
    return values


def check_values(values: Any, what: str, *, limit: int = MAX_VALUES, kind: type = bytearray) -> list[Any]:
    """Refuse nested values that are more than they look, and numbers too long to be printed; returns those of `kind`.

    Aliases share what they name, so that a few lines or bytes can stand for billions of values, or for themselves.

    Raises:
        InputError: more than `limit` values and keys, each counted as often as it is reached; an integer of more than
            128 bits. It begins with `what`.
    """
    todo, count = [values], 0
    found = []
    while todo:
        node = todo.pop()
        count += 1
        node = node.value if isinstance(node, yaml.Node) else node
        if isinstance(node, kind):
            found.append(node)
        elif isinstance(node, dict):
            todo += [*node.keys(), *node.values()]
        elif isinstance(node, (list, tuple, set)):
            todo += node
        elif isinstance(node, int) and node.bit_length() > 128:
            raise InputError(f"{what} has an integer of {node.bit_length()} bits. Is it the right file?")
        if count + len(todo) > limit:
            raise InputError(f"{what} has more than {limit} values, or aliases that repeat without end.")
    return found


def read_yaml(path: str | Path, what: str) -> Any:
    """The plain values of a YAML file; raises InputError as `read_text` and `parse_yaml` do."""
    return parse_yaml(read_text(path, what, limit=4 * MAX_YAML), str(path))
