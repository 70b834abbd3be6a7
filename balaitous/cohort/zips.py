"""Pictures in a zip: for models that read pictures a zip is a folder, and a picture in it has a path through it.

``slices.zip/ward/a.png`` is the member ``ward/a.png`` of ``slices.zip``. It is unpacked for as long as it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from balaitous.errors import InputError
from balaitous.reading.archive import members_of
from balaitous.reading.pictures import PICTURE_ENDINGS

ENDING = ".zip"


def pictures_in(path: Path, reads: Sequence[str]) -> list[Path]:
    """The paths of a zip's pictures, by name, for a model that reads them; else the path itself.

    A zip without pictures by their endings is left as it is, a DICOM series say; so is one that cannot be read, which
    reading it will say.
    """
    if "picture" not in reads or path.suffix.lower() != ENDING or not path.is_file():
        return [path]
    try:
        names = members_of(path)
    except InputError:
        return [path]
    return [path / name for name in sorted(names) if name.lower().endswith(PICTURE_ENDINGS)] or [path]


def split_at_zip(path: Path) -> tuple[Path, str] | None:
    """The zip that a path goes through, and the member's name; None of a path that goes through none."""
    for above in path.parents:
        if above.suffix.lower() == ENDING and above.is_file():
            return above, path.relative_to(above).as_posix()
    return None
