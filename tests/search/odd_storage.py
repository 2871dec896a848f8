"""A folder of this machine as a storage that fails when it is told to."""

from pathlib import Path

from search.errors import StorageError
from search.mirror import SEGMENTS
from search.storage import Kept, Storage


class OddStorage(Storage):
    """Fails as often as `failures` says; `written` are the names of files in the order in which they arrived."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.as_uri())
        self.folder = folder
        self.failures = 0.0
        self.error: Exception = StorageError("away")
        self.attempts = 0
        self.written: list[str] = []
        self.listed = 0

    def _meet(self) -> None:
        self.attempts += 1
        if self.failures:
            self.failures -= 1
            raise self.error

    def write(self, name: str, data: bytes) -> None:
        self._meet()
        super().write(name, data)
        self.written.append(name)

    def read(self, name: str) -> bytes | None:
        self._meet()
        return super().read(name)

    def get(self, name: str, path: Path) -> bool:
        self._meet()
        return super().get(name, path)

    def remove(self, name: str) -> None:
        self._meet()
        super().remove(name)

    def names(self, below: str = "") -> dict[str, Kept]:
        self._meet()
        self.listed += 1
        return super().names(below)


def journal_in(odd: OddStorage) -> bytes:
    """What a machine that knows only the storage takes for the journal: its segments one after the other."""
    storage = Storage(odd.uri)
    names = storage.names(SEGMENTS)
    return b"".join(storage.read(name) or b"" for name in sorted(names))
