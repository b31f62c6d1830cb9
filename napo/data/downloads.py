"""One download at a time: resumed, checked, unpacked, and linked to where the benchmarks look."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from napo.errors import NapoError
from napo.workspace.files import foreign_file, make_folder, sync, writing
from napo.workspace.hashing import hash_file

AGAIN = "call make fetch again, which continues where it stopped"
PIN = "#sha256="  # ends an address whose content is pinned
LOCAL = ("localhost", "127.0.0.1", "::1")


def human(size: float) -> str:
    """A number of bytes in MB or GB, of 10^6 and 10^9 bytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def size_of(path: Path) -> int:
    """Bytes of a file, -1 if it is missing."""
    return path.stat().st_size if path.is_file() else -1


def inside(folder: Path, name: str, owner: str) -> Path:
    """The path of a file, which must lie in the folder; `owner` names it."""
    path = (folder / name).resolve()
    if "\\" in name or not path.is_relative_to(folder.resolve()):
        raise NapoError(f"{owner} names {name!r}, outside {folder}; it was not written.")
    return path


def printable(address: str) -> str:
    """An address without name, password and query, which may be secrets."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # fails where a slash in the password hides its end
    except ValueError:
        return "the address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def download(address: str, path: Path) -> None:
    """Download one file; an interrupted download (`.part`) is continued.

    Args:
        address: https, on this machine, or ending in `#sha256=<digest>`.
        path: the file.

    Raises:
        NapoError: when the address does not answer or is not safe, or the content has another
            length or SHA-256 than expected.
    """
    name, digest = printable(address), address.partition(PIN)[2].lower()
    part = path.with_name(path.name + ".part")
    make_folder(path.parent)
    length = _receive(address, part)
    if length not in (None, size_of(part)):
        raise NapoError(f"{name} gave {size_of(part):,} bytes of {length:,}; {AGAIN}.")
    problem = foreign_file(part).replace("it is ", "is ")
    problem = "" if problem.endswith("unpack it") else problem  # an archive is what it should be
    if digest and hash_file(part) != digest:
        problem = "does not have the SHA-256 that the profile pins"
    if problem:
        part.unlink()
        raise NapoError(f"{name} {problem}; download it by hand.")
    with writing(path):  # the disk has the file before its name, and its name before the record
        sync(part)
        os.replace(part, path)
        sync(path.parent)


def _receive(address: str, part: Path) -> int | None:
    """Add the missing bytes to a part; return the file's length, if the server tells it."""
    name, begin = printable(address), max(0, size_of(part))
    headers = {"User-Agent": "napo"} | ({"Range": f"bytes={begin}-"} if begin else {})
    try:
        with urlopen(Request(address, headers=headers), timeout=60) as response:
            for url in (address, response.url):  # where it was redirected to
                parts = urlsplit(url)
                if parts.scheme != "https" and parts.hostname not in LOCAL and PIN not in address:
                    raise NapoError(
                        f"{printable(url)} is not https, so its content could be forged; use https "
                        f"in the profile, or end the address with {PIN}<digest>."
                    )
            begin = begin if response.status == 206 else 0
            with writing(part), open(part, "ab" if begin else "wb") as file:
                shutil.copyfileobj(response, file, 1 << 20)
            length = response.headers["Content-Length"]
            return begin + int(length) if length else None
    except HTTPError as error:
        if error.code == 416 and begin:  # the part has no fewer bytes than the file
            part.unlink()
            return _receive(address, part)
        problem, remedy = f"answers {error.code} {error.reason}", "download it by hand"
    except (OSError, HTTPException, ValueError) as error:  # their texts may repeat the address
        problem = f"cannot be downloaded ({type(getattr(error, 'reason', error)).__name__})"
        remedy = f"check the address and the network, then {AGAIN}"
    raise NapoError(f"{name} {problem}; {remedy}.")


def unpack(path: Path) -> dict[str, int]:
    """Unpack a zip file beside itself and delete it; return its members' bytes.

    Raises:
        NapoError: when it is damaged, or a member would leave the folder.
    """
    try:
        with writing(path.parent), zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                inside(path.parent, name, path.name)
            archive.extractall(path.parent)
            members = {m.filename: m.file_size for m in archive.infolist() if not m.is_dir()}
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise NapoError(f"{path} cannot be unpacked ({error}); delete it, then {AGAIN}.") from None
    path.unlink()
    return members


def arrange(folder: Path) -> None:
    """Link VLind-Bench's files, which come in a folder of their own, to where its reader looks."""
    for data in folder.glob("*/data.json"):
        for path in data.parent.iterdir():
            link = folder / path.name
            if not link.exists():
                with writing(link):
                    link.symlink_to(path.relative_to(folder))
