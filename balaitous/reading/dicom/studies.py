"""Which DICOM files may be of one scan: the study, the patient, the series and the frame of reference they belong to.

Anonymisers leave studies of several patients one number, or none at all. So files of two folders count as one scan only
where something says so, and files of one folder as long as nothing says otherwise.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pydicom.config
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag, Tag

from balaitous.reading.dicom.files import CT_CLASSES, read_header
from balaitous.reading.integrity import files_below

ORIGIN_KEYWORDS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
ORIGIN_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in ORIGIN_KEYWORDS]
KIND_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in ("SOPClassUID", "Modality", "ImageType")]


@dataclass(frozen=True)
class Origin:
    """Where a DICOM object comes from, as its header tells; empty where it does not.

    Attributes
    ----------
    patient, study, series, frame : its PatientID, StudyInstanceUID, SeriesInstanceUID and FrameOfReferenceUID as they
        are stored; they are compared, never told or kept
    is_slice : whether it is an image of a CT, no localizer
    """

    patient: bytes
    study: bytes
    series: bytes
    frame: bytes
    is_slice: bool = True

    def contradicts(self, other: Origin) -> bool:
        """Whether both are known to be of two patients or two studies."""
        pairs = ((self.patient, other.patient), (self.study, other.study))
        return any(mine and its and mine != its for mine, its in pairs)

    def belongs_to(self, other: Origin) -> bool:
        """Whether something says that both are of one scan."""
        if self.contradicts(other):
            return False
        if not (self.is_slice and other.is_slice):
            return bool(self.study) and self.study == other.study
        return bool(self.series and self.series == other.series) or bool(self.frame and self.frame == other.frame)


def origin_of(header: Dataset, is_slice: bool = True) -> Origin:
    """The origin that a header with `ORIGIN_KEYWORDS` tells."""
    patient, study, series, frame = (raw(header, tag) for tag in ORIGIN_TAGS)
    return Origin(patient, study, series, frame, is_slice)


def raw(header: Dataset, tag: BaseTag | int) -> bytes:
    """A text of a header as it is stored, without what pads it; empty where it is absent."""
    element = header.get_item(tag) if tag in header else None
    value = b"" if element is None or element.value is None else element.value
    return (value if isinstance(value, bytes) else str(value).encode()).strip(b"\0 ")


def origin_in(files: Sequence[Path]) -> Origin | None:
    """The origin of the first CT slice among files, else of the first DICOM object; None where there is neither.

    One file speaks for the folder it lies in: thousands of headers need not be read twice.
    """
    first = None
    for file in files:
        try:
            with pydicom.config.disable_value_validation():
                header = read_header(file, [*ORIGIN_TAGS, *KIND_TAGS])
                origin = origin_of(header, is_ct_slice(header))
        except Exception:  # pydicom lets a dozen types through for damaged headers; reading the scan will say so
            continue
        if origin.is_slice:
            return origin
        first = first or origin
    return first


def is_ct_slice(header: FileDataset) -> bool:
    """Whether a header with `KIND_TAGS` is that of an image of a CT, no localizer."""
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    is_ct = kind in CT_CLASSES if kind else header.get("Modality") == "CT"
    return is_ct and "LOCALIZER" not in (header.get("ImageType") or ())


def are_one(origins: Sequence[Origin]) -> bool:
    """Whether objects of several folders are of one scan: each belongs to another one of them."""
    todo, left = list(origins[:1]), list(origins[1:])
    while todo and left:
        one = todo.pop()
        todo += [each for each in left if each.belongs_to(one)]
        left = [each for each in left if not each.belongs_to(one)]
    return bool(origins) and not left


def two_apart(origins: Sequence[Origin]) -> tuple[int, int] | None:
    """The places of the first two objects that are known to be of two scans; None where there are none."""
    kinds = list(dict.fromkeys((each.patient, each.study) for each in origins))
    different = {each: Origin(*each, b"", b"") for each in kinds}
    for i, one in enumerate(kinds):
        for other in kinds[i + 1 :]:
            if different[one].contradicts(different[other]):
                keys = [(each.patient, each.study) for each in origins]
                return keys.index(one), keys.index(other)
    return None


@dataclass(frozen=True)
class Tree:
    """What lies below a folder.

    Attributes
    ----------
    origins : of the folder and each below it: where the DICOM files below come from, by the folder that they lie in
    files : of each of them: the files below that are inputs by themselves
    """

    origins: Mapping[Path, Mapping[Path, Origin]]
    files: Mapping[Path, Sequence[Path]]

    def is_whole(self, folder: Path) -> bool:
        """Whether all DICOM files of a folder and its sub-folders may be of one scan."""
        origins = list(self.origins[folder].values())
        return are_one(origins) or (folder in self.origins[folder] and not two_apart(origins))

    def is_scan(self, folder: Path) -> bool:
        """Whether a folder, and not only a folder below it, is an input.

        It is if it holds DICOM files itself (though they may have to be refused), or if all below it are of one scan.
        With image files below, which are inputs as well, a scan is called by the folder that is its own.
        """
        origins = self.origins[folder]
        if folder in origins:
            return True
        parts = {each.relative_to(folder).parts[0] for each in origins}
        return are_one(list(origins.values())) and (len(parts) > 1 or not self.files[folder])

    def divided(self, folder: Path) -> list[list[Path]]:
        """Folders below that name one study, and yet are a scan each, as nothing else says that they are of one."""
        origins, studies = self.origins[folder], defaultdict(list)
        for each, origin in sorted(origins.items()):
            if origin.study and origin.is_slice:
                studies[origin.patient, origin.study].append(each)
        return [
            group
            for group in studies.values()
            if not are_one([origins[each] for each in group])
            and not all(each.is_relative_to(group[0]) for each in group)  # which is the scan's own folder
        ]


def tree_of(folder: Path, is_input: Callable[[Path], bool]) -> Tree:
    """What lies below a folder. DICOM objects that are no slices count where there is nothing else that they belong to.

    Parameters
    ----------
    is_input : whether a file is an input by itself, as its name says
    """
    found: dict[Path, Origin] = {}
    inputs: dict[Path, list[Path]] = {}
    for parent, files in groupby(files_below(folder), key=lambda file: file.parent):
        names = sorted(files)
        inputs[parent] = [name for name in names if is_input(name)]
        origin = origin_in([name for name in names if not is_input(name)])
        if origin and (origin.is_slice or not inputs[parent]):
            found[parent] = origin
    studies = {origin.study for origin in found.values() if origin.is_slice}
    origins: dict[Path, dict[Path, Origin]] = defaultdict(dict)
    below: dict[Path, list[Path]] = defaultdict(list)
    for parent, files_here in inputs.items():
        origin = found.get(parent)
        counts = origin and (origin.is_slice or not studies or (origin.study and origin.study not in studies))
        for each in (parent, *parent.parents):
            below[each] += files_here
            if origin and counts:
                origins[each][parent] = origin
            if each == folder:
                break
    return Tree(origins, below)
