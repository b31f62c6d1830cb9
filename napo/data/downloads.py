"""One download at a time: resumed, checked, unpacked, and linked to where a reader looks."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException, InvalidURL
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from napo.errors import NapoError
from napo.workspace.files import make_folder, read_json, sync, writing

AGAIN = "call make fetch again, which goes on where it stopped"
Free = Callable[[Path], int]
_ID = re.compile(r"[\w.-]{1,100}", re.ASCII)  # of a picture of MMHal-Bench: a file's name


def human(size: float) -> str:
    """A number of bytes in MB or GB, of 10^6 and 10^9 bytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def size_of(path: Path) -> int:
    """Bytes of a file, -1 where there is none."""
    return path.stat().st_size if path.is_file() else -1


def inside(folder: Path, name: str, owner: str) -> Path:
    """The path of a name that must lie in a folder.

    Raises:
        NapoError: when it leaves the folder.
    """
    path = (folder / name).resolve()
    if "\\" in name or not path.is_relative_to(folder.resolve()):
        raise NapoError(f"{owner} names {name!r}, outside {folder}; it was not written.")
    return path


def shown(address: str) -> str:
    """An address as it may be printed: without name, password and query, which may be secrets."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # where an address is none, nobody knows where a password in it ends
    except ValueError:
        return "its address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def download(address: str, path: Path) -> None:
    """Download one file; a part of it that is there (`.part`) is continued.

    Raises:
        NapoError: when the address does not answer, or the file has another length than announced.
    """
    part = path.with_name(path.name + ".part")
    make_folder(path.parent)
    total = _receive(address, part)
    if total.isdigit() and size_of(part) != int(total):
        there = f"{size_of(part):,} bytes of {int(total):,}"
        if size_of(part) > int(total):
            part.unlink()
        raise NapoError(f"{shown(address)} gave {there}; {AGAIN}.")
    with open(part, "rb") as file:
        pointer = file.read(40).startswith(b"version https://git-lfs")
    if pointer:
        part.unlink()
        raise NapoError(f"{shown(address)} is a pointer of Git LFS, not the file; get it by hand.")
    _put(part, path)


def _receive(address: str, part: Path) -> str:
    """Add to a part what it lacks, and give the length that the server announced, or nothing."""
    called = shown(address)
    if "@" in address.partition("//")[2].partition("/")[0]:
        raise NapoError(
            f"{called} comes with a name or password, which is not sent; get it by hand."
        )
    headers = {"User-Agent": "napo", "Range": f"bytes={max(0, size_of(part))}-"}
    try:
        with urlopen(Request(address, headers=headers), timeout=60) as answer:
            resumed = answer.status == 206
            name = "Content-Range" if resumed else "Content-Length"
            with writing(part), open(part, "ab" if resumed else "wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
            return (answer.headers[name] or "").rpartition("/")[2]
    except HTTPError as error:
        if error.code != 416:  # nothing is left to send: the part may be whole
            raise NapoError(
                f"{called} answers {error.code} {error.reason}; get it by hand."
            ) from None
        return (error.headers["Content-Range"] or "").rpartition("/")[2]
    except (InvalidURL, ValueError):  # their text repeats the address
        raise NapoError(f"{called} cannot be opened; correct it in the profile.") from None
    except (OSError, HTTPException) as error:
        raise NapoError(f"{called} broke off ({error}); check the network, then {AGAIN}.") from None


def _put(part: Path, path: Path) -> None:
    """Give a part that is whole its name; on return the disk has both."""
    with writing(path):
        sync(part)
        os.replace(part, path)
        sync(path.parent)


def unpack(path: Path, free: Free) -> dict[str, int]:
    """Unpack a zip file beside itself and remove it.

    Args:
        path: the file.
        free: folder -> bytes that are free there.

    Returns:
        Member -> bytes.

    Raises:
        NapoError: when it is damaged, does not fit, or a member would leave the folder.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = {m.filename: m.file_size for m in archive.infolist() if not m.is_dir()}
            for name in archive.namelist():
                inside(path.parent, name, path.name)
            if free(path.parent) < sum(files.values()):
                need = human(sum(files.values()))
                raise NapoError(f"{path} needs {need} to unpack; free some space, then {AGAIN}.")
            archive.extractall(path.parent)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise NapoError(f"{path} cannot be unpacked ({error}); delete it, then {AGAIN}.") from None
    path.unlink()
    return files


def arrange(folder: Path) -> None:
    """Link files to where the benchmarks' readers look, if the download has them elsewhere.

    Raises:
        NapoError: when a list of a benchmark is not what it was, or names what lies outside.
    """
    links = {}
    for data in folder.glob("*/data.json"):  # VLind-Bench lies in a folder of its own
        links |= {folder / path.name: path for path in data.parent.iterdir()}
    template = folder / "response_template.json"
    if template.is_file():
        links |= _by_id(template)
    for link, file in links.items():
        if os.path.exists(file) and not os.path.exists(link):  # False for a name that is too long
            with writing(link):
                link.symlink_to(os.path.relpath(file, link.parent))


def _by_id(template: Path) -> dict[Path, Path]:
    """MMHal-Bench's images, which have Flickr's names, by their questions' ids: link -> file."""
    images, links = template.parent / "images", {}
    try:
        for question in read_json(template):
            id, name = question["image_id"], question["image_src"].rpartition("/")[2]
            link = inside(images, f"{id}.jpg", template.name)
            links[link] = inside(images, name, template.name)
            if not _ID.fullmatch(id):
                raise ValueError("no id")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise NapoError(
            f"{template} does not give each question an image_id and an image_src, as "
            f"MMHal-Bench's does; delete it, then {AGAIN}."
        ) from None
    return links
