"""What downloaded files hold, as one hash; files that have not changed since are not read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from napo.errors import NapoError
from napo.workspace.files import fingerprint, hash_file, read_json, write_json


def content_hash(files: Iterable[Path], folder: Path, memory: Path) -> str:
    """A hash of the names and the bytes of files: 16 hexadecimal digits.

    A file is read again when its size, its time of change or its place on the disk is another one.

    Args:
        files: the files, below `folder`.
        folder: what their names are relative to.
        memory: a file that keeps the hashes; its loss costs the time to read everything.

    Raises:
        NapoError: when a file cannot be read, naming it.
    """
    known, now = _known(memory), {}
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            state = path.stat()
            mark = [str(path), state.st_size, state.st_mtime_ns, state.st_ino]
            there = known.get(name)
            same = isinstance(there, list) and there[:-1] == mark
            now[name] = [*mark, there[-1] if same else hash_file(path)]
        except OSError as error:
            raise NapoError(f"{path} cannot be read ({error.strerror}); get it again.") from None
    if any(known.get(name) != value for name, value in now.items()):
        write_json(memory, {**known, **now})
    return fingerprint(sorted((name, value[-1]) for name, value in now.items()))


def _known(memory: Path) -> dict[str, object]:
    try:
        found = read_json(memory) if memory.is_file() else {}
    except NapoError:  # it only saves time
        found = {}
    return found if isinstance(found, dict) else {}
