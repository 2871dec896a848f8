"""A survey as training sees it: its manifest, and its splits mapped once for all trials of a process."""

from pathlib import Path

from galaxy_models.data.manifest import Manifest
from galaxy_models.data.shards import Split
from galaxy_models.errors import DataError
from galaxy_models.task import Task


class SurveyData:
    """A folder of shards. Splits are mapped when first asked for, and kept.

    Attributes:
        directory: the survey's folder.
        manifest: what it holds.
    """

    def __init__(self, directory: Path | str) -> None:
        """Read the manifest.

        Args:
            directory: a folder made by a conversion.

        Raises:
            ManifestError: no manifest, a damaged one, or one of another schema version.
        """
        self.directory = Path(directory)
        self.manifest = Manifest.load(self.directory)
        self._splits: dict[str, Split] = {}

    @property
    def task(self) -> Task:
        """What is asked of a galaxy."""
        return self.manifest.task

    def split(self, name: str) -> Split:
        """Map a split, or return it if it is mapped.

        Args:
            name: `train`, `val` or `test`.

        Raises:
            DataError: the split has no galaxies.
            ShardError: a shard is missing, altered or truncated.
        """
        if name not in self._splits:
            split = Split.open(self.directory, self.manifest, name)
            if split.num_rows == 0:
                raise DataError(
                    f"{self.directory}: got no galaxies in the split {name!r}, expected some: "
                    "convert the survey again with a larger share for it, or with more galaxies"
                )
            self._splits[name] = split
        return self._splits[name]
