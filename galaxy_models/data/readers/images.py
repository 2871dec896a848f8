"""Images in files and in zip archives."""

import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from galaxy_models.data.readers.base import ImageError, ImageSource, LoadedImage

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif"})


def _decode(data: bytes, px: int, crop: float) -> LoadedImage:
    from galaxy_models.data.decode import decode_galaxy

    return LoadedImage(decode_galaxy(data, px=px, crop=crop), hashlib.blake2b(data, digest_size=16).digest())


@dataclass(frozen=True)
class FileImage(ImageSource):
    """An image file.

    Attributes:
        root: absolute path of the survey's folder.
        path: of the file, inside the root or absolute.
    """

    preload: ClassVar[tuple[str, ...]] = ("galaxy_models.data.decode",)

    root: str
    path: str

    @property
    def location(self) -> str:
        """The path as the survey gives it."""
        return self.path

    def load(self, *, px: int, crop: float) -> LoadedImage:
        """Read and decode the file; see the contract."""
        try:
            data = Path(self.root, self.path).read_bytes()
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except IsADirectoryError:
            raise ImageError("a folder, not a file") from None
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return _decode(data, px, crop)


@lru_cache(maxsize=4)
def _open_archive(path: str) -> zipfile.ZipFile:
    # Kept open by each worker process: reading the directory of 60,000 members takes longer than an image.
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class ZipImage(ImageSource):
    """An image inside a zip archive, read without unpacking it.

    Attributes:
        archive: absolute path of the archive.
        member: the image's name inside it.
    """

    preload: ClassVar[tuple[str, ...]] = ("galaxy_models.data.decode",)

    archive: str
    member: str

    @property
    def location(self) -> str:
        """The archive's file name and the member's name."""
        return f"{Path(self.archive).name}:{self.member}"

    def load(self, *, px: int, crop: float) -> LoadedImage:
        """Read and decode the member; see the contract."""
        try:
            data = _open_archive(self.archive).read(self.member)
        except KeyError:
            raise ImageError("no such member in the archive") from None
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ImageError(f"cannot be unpacked: {error}") from None
        return _decode(data, px, crop)
