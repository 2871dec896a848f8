"""One reader per survey format; `find_reader` imports the one that is asked for."""

import importlib

from galaxy_models.data.readers.base import ImageError, ImageSource, LoadedImage, Reader, Record

__all__ = ["READERS", "ImageError", "ImageSource", "LoadedImage", "Reader", "Record", "find_reader"]

# Reader's name -> its module and class.
READERS = {
    "folder": ("galaxy_models.data.readers.folder", "FolderReader"),
    "catalog": ("galaxy_models.data.readers.catalog", "CatalogReader"),
    "kaggle": ("galaxy_models.data.readers.kaggle", "KaggleReader"),
    "simulated": ("galaxy_models.data.readers.simulated", "SimulatedReader"),
}


def find_reader(name: str) -> type[Reader]:
    """Import the reader of this name (a key of `READERS`)."""
    module, kind = READERS[name]
    reader: type[Reader] = getattr(importlib.import_module(module), kind)
    return reader
