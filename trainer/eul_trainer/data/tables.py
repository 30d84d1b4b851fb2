"""Rows of Parquet files, and of Arrow streams in a zip, in batches; nothing is unpacked to disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from eul_serve.errors import InputError
from eul_trainer.records import LFS_POINTER, Watch

BATCH = 1000
"""Rows read at a time."""
LARGEST = 4 << 30
"""Most bytes that a zip may unpack to: more is a broken or hostile file."""

Record = dict[str, Any]


def read_parquet(path: Path, columns: Sequence[str], watch: Watch | None = None) -> Iterator[Record]:
    """Read some columns of a Parquet file, batch by batch.

    Args:
        path: The file.
        columns: The columns, all of them needed.
        watch: Told after every batch about the rows read and the rows in all.

    Yields:
        The rows.

    Raises:
        InputError: The file is missing, is no Parquet file, is cut off, or lacks a column.
    """
    import pyarrow.parquet

    with _readable(path, "a Parquet file"):
        file = pyarrow.parquet.ParquetFile(path)
        _check_columns(path.name, file.schema_arrow.names, columns)
        total, done = file.metadata.num_rows, 0
        for batch in file.iter_batches(batch_size=BATCH, columns=list(columns)):
            yield from batch.to_pylist()
            done += batch.num_rows
            if watch:
                watch(done, total)


def read_zip(path: Path, split: str, columns: Sequence[str], watch: Watch | None = None) -> Iterator[Record]:
    """Read a split of a data set that lies as Arrow streams in a zip: `<any folder>/<split>/*.arrow`.

    Args:
        path: The zip.
        split: Name of the folder with the streams.
        columns: The columns, all of them needed.
        watch: Told after every batch about the bytes read and the bytes in all.

    Yields:
        The rows.

    Raises:
        InputError: The file is missing, is no zip, is cut off, has a name that would leave its folder, or lacks the
            split or a column.
    """
    with _readable(path, "a zip"), zipfile.ZipFile(path) as file:
        members = _members(path, file, split)
        total, done = sum(member.file_size for member in members), 0
        for member in members:
            with file.open(member) as stream:
                for batch in _batches(stream, f"{path.name}: {member.filename}", columns):
                    yield from batch.to_pylist()
                    if watch:
                        watch(done + stream.tell(), total)
                stream.read()  # to its end, where its checksum is compared
            done += member.file_size


def _members(path: Path, file: zipfile.ZipFile, split: str) -> list[zipfile.ZipInfo]:
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for member in file.infolist():
        name = PurePosixPath(member.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
            raise InputError(f"{str(path)!r}: name {member.filename!r:.100} leaves its folder; get the file anew")
        if name.suffix == ".arrow":
            found.setdefault(name.parent.name, []).append(member)
    if sum(member.file_size for members in found.values() for member in members) > LARGEST:
        raise InputError(f"{str(path)!r}: expected at most {LARGEST} bytes when unpacked; get the file anew")
    if split not in found:
        names = ", ".join(sorted(found)) or "none"
        raise InputError(f"{str(path)!r}: no split {split!r} with .arrow files; it has {names}")
    return sorted(found[split], key=lambda member: member.filename)


def _batches(stream: Any, name: str, columns: Sequence[str]) -> Iterator[Any]:  # noqa: ANN401  # pyarrow has no types
    import pyarrow.ipc

    reader = pyarrow.ipc.open_stream(stream)
    _check_columns(name, reader.schema.names, columns)
    for batch in reader:
        yield batch.select(list(columns))


def _check_columns(name: str, found: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in found]:
        raise InputError(
            f"{name}: expected the columns {', '.join(columns)}; {', '.join(missing)} is missing, found "
            f"{', '.join(map(str, found))[:200] or 'none'}"
        )


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise into one line."""
    import pyarrow

    try:
        with path.open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise InputError(f"{str(path)!r}: looks like a Git LFS pointer, not the data itself; run git lfs pull")
        yield
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, pyarrow.ArrowException) as error:
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{str(path)!r}: cannot read: {error.strerror}; name {kind}") from error
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"{str(path)!r}: expected {kind}, whole: {reason}; get the file anew") from error
