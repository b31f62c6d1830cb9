"""One download at a time: resumed, checked, unpacked, and linked to where a reader looks."""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from napo.errors import NapoError
from napo.storage import make_folder
from napo.workspace import read_json

AGAIN = "call make fetch again, which goes on where it stopped"
Free = Callable[[Path], int]


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


def download(address: str, path: Path) -> None:
    """Download one file; a part of it that is there (`.part`) is continued.

    Raises:
        NapoError: when the address does not answer, or the file has another length than announced.
    """
    part = path.with_name(path.name + ".part")
    make_folder(path.parent)
    headers = {"User-Agent": "napo", "Range": f"bytes={max(0, size_of(part))}-"}
    total = ""
    try:
        with urlopen(Request(address, headers=headers), timeout=60) as answer:
            resumed = answer.status == 206
            name = "Content-Range" if resumed else "Content-Length"
            total = (answer.headers[name] or "").rpartition("/")[2]
            with open(part, "ab" if resumed else "wb") as file:
                shutil.copyfileobj(answer, file, 1 << 20)
    except HTTPError as error:
        if error.code != 416:  # nothing is left to send: the part may be whole
            raise NapoError(
                f"{address} answers {error.code} {error.reason}; get it by hand."
            ) from None
        total = (error.headers["Content-Range"] or "").rpartition("/")[2]
    except (OSError, HTTPException, ValueError) as error:
        raise NapoError(
            f"{address} broke off ({error}); check the network, then {AGAIN}."
        ) from None
    if total.isdigit() and size_of(part) != int(total):
        there = f"{size_of(part):,} bytes of {int(total):,}"
        if size_of(part) > int(total):
            part.unlink()
        raise NapoError(f"{address} gave {there}; {AGAIN}.")
    with open(part, "rb") as file:
        pointer = file.read(40).startswith(b"version https://git-lfs")
    if pointer:
        part.unlink()
        raise NapoError(f"{address} is a pointer of Git LFS, not the file; get it by hand.")
    os.replace(part, path)


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
    """Link files to where the benchmarks' readers look, if the download has them elsewhere."""
    links = {}
    for data in folder.glob("*/data.json"):  # VLind-Bench lies in a folder of its own
        links |= {folder / path.name: path for path in data.parent.iterdir()}
    template = folder / "response_template.json"
    if template.is_file():  # MMHal-Bench's images have Flickr's names, its questions their ids
        images = folder / "images"
        for question in read_json(template):
            file = images / question["image_src"].rpartition("/")[2]
            link = inside(images, f"{question['image_id']}.jpg", template.name)
            links[link] = inside(images, file.name, template.name)
    for link, file in links.items():
        if file.exists() and not link.exists():
            link.symlink_to(os.path.relpath(file, link.parent))
