"""One bounded reader of tensor files: no code of theirs runs, and nothing is larger than the file that holds it."""

import hashlib
import io
import pickle
import re
import struct
import zipfile
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from dfad_seg.common.errors import InputError, instead_of, printable
from dfad_seg.common.reading import check_values

MAX_PICKLE = 2**26
"""Bytes of the part of a file that says which tensors it has; a large training checkpoint has one of a megabyte."""
MAX_VALUES = 1_000_000
"""Values in a file, tensors among them."""
MAX_TENSORS = 20_000
MAX_VIEWS = 16
"""How often, on average, the tensors of a file may show each byte of it."""

_LEGACY = 0x1950A86A20F9469CFC6C  # torch < 1.6 begins its files with this number
# What trainers and NumPy leave beside the weights: arguments and logs, which stay placeholders.
# `builtins.getattr` is how pickle names the methods that the log's class keeps in a table.
_LOGS = re.compile(
    r"mmengine\.logging\.history_buffer\.HistoryBuffer"
    r"|builtins\.getattr|argparse\.Namespace|types\.SimpleNamespace|pathlib(\._local)?\.\w*Path"
    r"|numpy\.(ndarray|dtype|dtypes\.\w+DType|(_?core)\.multiarray\.(_reconstruct|scalar))"
)


class Inert:
    """Stands for an object of a file: it takes whatever it is given and does nothing with it."""

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _Refused(Exception):
    """A file that is not damaged, and still is not read; the text says why and what to do."""


def read_tensors(path: str | Path, what: str = "checkpoint") -> Any:
    """The content of a file of `torch.save` (any release) or of safetensors: tensors on the CPU and plain values.

    Nothing that the file names is looked up or called: it is rebuilt from a fixed list of types. Objects that
    training logs leave in it become `Inert`. What is stored with a CRC-32, as `torch.save` does, is compared with it.

    Raises:
        InputError: it begins with `what`: no such file, a damaged one, another kind, Python objects inside, tensors
            that claim more than is there, more than `MAX_VALUES` values.
    """
    path, name = Path(path), f"{what} {printable(path)}"
    try:
        if not path.exists():
            raise _Refused(f"does not exist.{instead_of(path)}")
        if not path.is_file():
            raise _Refused("is not a file. Give the path of a .pt, .pth or .safetensors file.")
        size = path.stat().st_size
        if size == 0:
            raise _Refused("is empty. Write or copy it again.")
        content = _read(path)
    except _Refused as refused:
        raise InputError(f"{name} {refused}") from None
    except PermissionError:
        raise InputError(f"{name} cannot be read: permission denied.") from None
    except Exception as error:  # a damaged file can raise nearly anything
        reason = printable(str(error).strip() or "no details", 120)
        raise InputError(
            f"{name} cannot be read: it is damaged, cut off, or no checkpoint at all"
            f" ({type(error).__name__}: {reason}). Write or copy it again."
        ) from error
    tensors = check_values(content, name, limit=MAX_VALUES, kind=Tensor)
    shown = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if shown > MAX_VIEWS * size + 2**20:
        raise InputError(f"{name} has {size} bytes and shows tensors of {shown}. Save dense copies of them.")
    if len(tensors) > MAX_TENSORS:
        raise InputError(
            f"{name} has {len(tensors)} tensors, and at most {MAX_TENSORS} are read. Is it the right file?"
        )
    return content


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over a state's sorted names, types, shapes and bytes, in hexadecimal; the same on any device."""
    made = hashlib.sha256()
    for key in sorted(state):
        value = state[key].detach().cpu().contiguous()
        made.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode(errors="surrogatepass"))
        made.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return made.hexdigest()


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path, device="cpu")
    with open(path, "rb") as handle:
        start = handle.read(4)
        if start == b"PK\x03\x04":
            return _Archive(handle).content()
        if start[:1] != pickle.PROTO:
            raise _Refused("is no checkpoint: neither torch.save nor safetensors wrote it. Check the path.")
        handle.seek(0)
        return _legacy(handle, path.stat().st_size)


class _Unpickler(pickle._Unpickler):  # in Python: the one in C makes its table as large as a file tells it to
    """Rebuilds tensors and plain values; `storage(key, bytes)` gives the bytes of a tensor."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, handle: IO[bytes], storage: Callable[[str, int], Tensor]) -> None:
        super().__init__(handle, encoding="latin1")
        self.storage = storage

    def persistent_load(self, pid: Any) -> tuple[Tensor, torch.dtype]:
        name, dtype, key, _, count = pid[:5]
        if name != "storage" or not isinstance(dtype, torch.dtype) or (len(pid) > 5 and pid[5] is not None):
            raise _Refused("names its tensors in a way that is not known. Save it with a later torch.")
        return self.storage(str(key), int(count) * dtype.itemsize), dtype

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if full in _KNOWN:
            return _KNOWN[full]
        storage = re.fullmatch(r"torch(?:\.cuda)?\.(\w+)Storage", full)
        if storage and storage[1] in _STORAGES:
            return _STORAGES[storage[1]]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if _LOGS.fullmatch(full):
            return Inert
        raise _Refused(
            f"holds Python objects ({printable(full, 80)}), which could run any code when loaded, so it was refused."
            " Save the weights alone: torch.save(model.state_dict(), path)."
        )

    def _build(self) -> None:
        # Only the names of a state dict's versions, and logs, have a state of their own.
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(target, OrderedDict) and isinstance(state, dict) and set(state) <= {"_metadata"}:
            target.__dict__.update(state)
        elif not isinstance(target, Inert):
            raise _Refused(f"sets the state of a {type(target).__name__}, which no checkpoint does, so it was refused.")

    dispatch[pickle.BUILD[0]] = _build


def _tensor(storage: tuple[Tensor, torch.dtype], offset: int, size: Any, stride: Any, *more: Any) -> Tensor:
    data, dtype = storage
    dtype = next((value for value in more if isinstance(value, torch.dtype)), dtype)
    if dtype.itemsize * torch.Size(size).numel() > data.numel():
        raise _Refused("has tensors that repeat their values. Save dense copies: {name: tensor.contiguous() ...}.")
    return torch.empty(0, dtype=dtype).set_(data.untyped_storage(), offset, tuple(size), tuple(stride))


def _first(value: Any, *_: Any) -> Any:
    return value


def _plain(text: str | bytes = b"", encoding: str = "latin1") -> bytes:
    return text.encode("latin1") if isinstance(text, str) else bytes(text)


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "collections.Counter": Counter,
    "builtins.set": set,
    "builtins.complex": complex,
    "_codecs.encode": _plain,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
}
_STORAGES: dict[str, torch.dtype] = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
_KNOWN |= {"torch.storage.UntypedStorage": torch.uint8}


class _Archive:
    """A file of torch ≥ 1.6: a zip archive whose members are stored as they are, a pickle and one per storage."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        with zipfile.ZipFile(handle) as archive:
            members = archive.infolist()
        self.members = {member.filename: member for member in members}
        names = [name.partition("/")[2] for name in self.members]
        if "constants.pkl" in names and any(name.startswith("code/") for name in names):
            raise _Refused("is a TorchScript file, no weights. Use the segmentor source 'torchscript' with it as path.")
        if len(self.members) < len(members):
            raise _Refused("has two members of one name. Save it again.")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _Refused("has compressed members, which torch.save never writes. Save it again with torch.save.")
        if "data.pkl" not in names:
            raise _Refused("is a zip archive, and not one that torch.save writes. Check the path.")
        self.top = list(self.members)[names.index("data.pkl")].removesuffix("data.pkl")
        self.read: dict[str, Tensor] = {}

    def content(self) -> Any:
        if f"{self.top}byteorder" in self.members and bytes(self.member("byteorder").numpy()) != b"little":
            raise _Refused("was written by a machine of another byte order. Save it again on this kind of machine.")
        if self.members[f"{self.top}data.pkl"].file_size > MAX_PICKLE:
            raise _Refused(f"lists its tensors in more than {MAX_PICKLE} bytes. Save the weights alone.")
        return _Unpickler(io.BytesIO(self.member("data.pkl").numpy().tobytes()), self.storage).load()

    def storage(self, key: str, size: int) -> Tensor:
        if key not in self.read:
            self.read[key] = self.member(f"data/{key}")
        if size > self.read[key].numel():
            raise _Refused("has tensors that are larger than their bytes in the file. It is damaged: copy it again.")
        return self.read[key]

    def member(self, name: str) -> Tensor:
        """The bytes of a member, compared with its checksum (0 where torch was told to write none)."""
        found = self.members[self.top + name]
        self.handle.seek(found.header_offset)
        header = self.handle.read(30)
        name_length, more_length = struct.unpack("<26xHH", header)
        self.handle.seek(name_length + more_length, 1)
        data = _bytes(self.handle, found.file_size)
        if found.CRC and zlib.crc32(data.numpy().data) != found.CRC:
            raise _Refused(
                f"is damaged: the checksum of {printable(found.filename)} is another. Copy or write it again."
            )
        return data


def _bytes(handle: IO[bytes], size: int) -> Tensor:
    position = handle.tell()
    handle.seek(0, 2)
    if not 0 <= size <= handle.tell() - position:
        raise _Refused("claims more bytes than it has. It is damaged or cut off: copy it again.")
    handle.seek(position)
    try:
        data = torch.empty(size, dtype=torch.uint8)
    except RuntimeError:
        raise _Refused(f"needs {size / 2**20:.0f} MiB of memory more than is free. Free some.") from None
    handle.readinto(data.numpy().data)  # type: ignore[attr-defined]
    return data


def _legacy(handle: IO[bytes], size: int) -> Any:
    """A file of torch < 1.6: pickles one after the other, and then the bytes of each storage."""
    storages: dict[str, Tensor] = {}

    def storage(key: str, count: int) -> Tensor:
        if not 0 <= sum(known.numel() for known in storages.values()) + count <= size + 2**16:
            raise _Refused("claims more bytes than it has. It is damaged or cut off: copy it again.")
        return storages.setdefault(key, torch.empty(count, dtype=torch.uint8))

    if _Unpickler(handle, storage).load() != _LEGACY:
        raise _Refused("is no checkpoint of torch. Save the weights: torch.save(model.state_dict(), path).")
    _, system, content, keys = (_Unpickler(handle, storage).load() for _ in range(4))
    if not system.get("little_endian", True):
        raise _Refused("was written by a machine of another byte order. Save it again on this kind of machine.")
    for key in keys:
        data = storages[str(key)]
        handle.read(8)  # the number of entries, which the pickle said
        data.copy_(_bytes(handle, data.numel()))
    return content
