"""A DICOM folder: which series is the chest CT, which others there are, and whether all of its files can be read.

Only headers are read here; `balaitous.ct.slices` judges the slices of the series, `balaitous.ct.dicom_pixels` reads
their pixels. A file that looks like a damaged member of the series is refused by its name: left out in silence, it
would take the end of the lungs with it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom.config
from pydicom.dataset import FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, CTImageStorage

from balaitous.ct.enhanced import frames_of
from balaitous.ct.slices import (
    GEOMETRY,
    SLICE_KEYWORDS,
    SLICE_NOTES,
    Slice,
    has_geometry,
    ordered,
    patient_of,
    slice_of,
)
from balaitous.errors import InputError
from balaitous.reading.dicom.files import ENHANCED_CT_CLASSES, START_BYTES, read_header
from balaitous.reading.dicom.studies import two_apart
from balaitous.reading.integrity import check_inside, files_below
from balaitous.reading.limits import in_time
from balaitous.reading.patient import Patient

HEADER_TAGS: list[BaseTag | int] = [
    Tag(keyword)
    for keyword in (*SLICE_KEYWORDS, *SLICE_NOTES, "SOPClassUID", "Modality", "ImageType", "NumberOfFrames")
]
META_CLASS = "MediaStorageSOPClassUID"
OTHERS_TOLD = 8  # series beside the one that is read
NUMBERS = re.compile(r"\d+")
HASHES = re.compile(r"(?=[a-f_-]*\d)[0-9a-f_-]{16,}")  # and UUIDs
HALF_COPIED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp")
NEVER_A_SLICE = ("dicomdir",)  # whatever is in it


@dataclass(frozen=True)
class Series:
    """One regular CT series.

    Attributes
    ----------
    uid : its SeriesInstanceUID; "" where its files tell none
    slices : in the order of growing position along the normal
    patient : age and sex in its headers
    told : kernel, slice thickness and number of slices, for people
    others : the same of every other CT series that was there, each with its UID, in one line
    """

    uid: str
    slices: tuple[Slice, ...]
    patient: Patient
    told: str
    others: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of each slice."""
        return tuple(each.file for each in self.slices)


@dataclass(frozen=True)
class _Doubtful:
    """A file that is no slice, but may have been one.

    Attributes
    ----------
    reason : what is wrong with it, after its name
    is_dicom : whether it is a DICOM file at all
    series_uid : that it tells; "" where it tells none
    """

    file: Path
    reason: str
    is_dicom: bool = True
    series_uid: str = ""


@dataclass
class _Found:
    """What lies below a folder: slices by what they are known by, how many files of which other kind, and doubts."""

    slices: dict[tuple, Slice] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    doubtful: list[_Doubtful] = field(default_factory=list)

    def add(self, slices: Iterable[Slice]) -> None:
        """Take slices; one that is there twice counts once, unless the two differ in what they say."""
        for each in slices:
            key = (each.origin, each.instance_uid, each.frame, each.position_mm.tobytes())
            twin = self.slices.setdefault(key, each)
            if twin is not each and (twin.values, twin.shape, twin.spacing_mm) != (
                each.values,
                each.shape,
                each.spacing_mm,
            ):
                self.slices[*key, each.file] = each


def select_series(folder: Path, uid: str | None = None) -> Series:
    """The CT series with the most axial slices in a folder and its sub-folders, or the one with the given UID.

    A single file is as good as a folder with nothing else in it. Localizers, secondary captures, reports and other
    objects are left out; a file that is there twice (same SOP instance) counts once.

    Raises
    ------
    InputError
        No such series, its slices do not form a regular volume (mixed sizes, spacings, directions or stored numbers,
        slices at the same position, gaps, a tilted gantry), or a file beside them looks like a damaged one of them.
    """
    found = _read_headers(folder)
    series: dict[str, list[Slice]] = defaultdict(list)
    for each in found.slices.values():
        series[each.series_uid].append(each)
    axial = {key: sum(each.axial for each in series[key]) for key in sorted(series)}
    listing = "; ".join(f"{key or 'without UID'} ({len(series[key])} slices)" for key in axial)
    if uid is not None and uid not in series:
        raise InputError(f"expected series {uid}, found {listing or _listing(found.others)}; choose one of these")
    if uid is None and not any(axial.values()):
        what = f"no axial one in {listing}; choose one by its UID" if series else f"{_listing(found.others)}; give a CT"
        raise InputError(f"expected a folder with a CT series in DICOM, found {what}")
    chosen = uid or max(axial, key=lambda key: axial[key])
    _check_one_scan(list(found.slices.values()) if uid is None else series[uid], folder, listing)
    slices = series.pop(chosen)
    try:
        _refuse_strays(slices, chosen, series)
        _refuse_damaged(slices, chosen, found.doubtful)
        in_order, patient = ordered(slices), patient_of(slices)
    except InputError as error:
        hint = f" (or choose another series: {listing})" if series else ""
        raise InputError(f"series {chosen or 'without UID'}: {error}{hint}") from error
    return Series(chosen, tuple(in_order), patient, _told(slices), _told_others(series))


def _check_one_scan(slices: Sequence[Slice], folder: Path, listing: str) -> None:
    """Refuse slices that are known to be of several patients or studies: which of them is meant, nobody can tell."""
    if apart := two_apart([each.origin for each in slices]):
        one, other = (slices[place].file.relative_to(folder) for place in apart)
        raise InputError(
            f"expected one study of one patient, found several, such as those of {one} and {other}; give the folder of "
            f"one of them, or choose a series by its UID: {listing}"
        )


def _read_headers(folder: Path) -> _Found:
    """Every CT slice below the folder, and what else lies there."""
    found = _Found()
    # Odd values in tags we do not use are no concern of ours, and pydicom would warn about them.
    with pydicom.config.disable_value_validation():
        for file in in_time(sorted(in_time(files_below(folder))) if folder.is_dir() else [folder]):
            check_inside(file, folder)
            try:
                _look_at(file, found)
            except InvalidDicomError:
                found.others["not DICOM"] += 1
                if file.is_file() or file.is_symlink():  # a pipe is no damaged slice
                    found.doubtful.append(_Doubtful(file, _what_is_wrong(file), is_dicom=False))
            except (InputError, PermissionError):
                raise
            except Exception as error:  # pydicom lets a dozen types through for damaged headers
                reason = str(error) or type(error).__name__
                raise InputError(
                    f"expected readable DICOM files, {file.relative_to(folder)} has a damaged header ({reason}); "
                    "export the series again"
                ) from error
    return found


def _look_at(file: Path, found: _Found) -> None:
    """Add what a file is to what was found; damage may raise anything."""
    header = read_header(file, HEADER_TAGS)
    series_uid = str(header.get("SeriesInstanceUID") or "")
    class_uid = _class_of(header)
    if class_uid not in (CTImageStorage, *ENHANCED_CT_CLASSES):
        found.others[f"DICOM of another kind ({header.get('Modality') or 'no modality'})"] += 1
        if not class_uid or not (_is_known(class_uid) or header.get("Modality")):
            found.doubtful.append(_Doubtful(file, "does not say what it is", series_uid=series_uid))
        elif has_geometry(header) and not _is_known(class_uid):
            found.doubtful.append(_Doubtful(file, "is of a kind that DICOM does not know", series_uid=series_uid))
        return
    if "LOCALIZER" in (header.get("ImageType") or ()):
        found.others["localizer"] += 1
    elif class_uid in ENHANCED_CT_CLASSES:
        if (frames := frames_of(file)) is not None:
            found.add(frames)
        else:
            found.others["multi-frame CT without positions, directions or spacings"] += 1
            found.doubtful.append(_Doubtful(file, "has frames without place", series_uid=series_uid))
    elif (header.get("NumberOfFrames") or 1) != 1 or (header.get("SamplesPerPixel") or 1) != 1:
        found.others["CT image with several frames or colours"] += 1
        found.doubtful.append(_Doubtful(file, "has several frames or colours", series_uid=series_uid))
    elif not has_geometry(header):
        missing = ", ".join(keyword for keyword in GEOMETRY if not header.get(keyword))
        found.others["CT image without position, direction or spacing"] += 1
        found.doubtful.append(_Doubtful(file, f"has no {missing}", series_uid=series_uid))
    else:
        found.add([slice_of(file, header)])


def _class_of(header: FileDataset) -> str:
    """SOP class of a file: its own, else that of its file meta information, else what its modality says."""
    told = [str(each.get(name) or "") for each, name in ((header, "SOPClassUID"), (header.file_meta, META_CLASS))]
    by_modality = str(CTImageStorage) if header.get("Modality") == "CT" else ""
    return next(filter(_is_known, told), "") or next(filter(None, told), "") or by_modality


def _is_known(class_uid: str) -> bool:
    """Whether DICOM knows a SOP class; those of scanners' makers it does not."""
    return UID(class_uid).type == "SOP Class"


def _what_is_wrong(file: Path) -> str:
    """Of a file that is not DICOM, after its name."""
    if not file.is_file():
        return "is a link to nothing"
    with file.open("rb") as stream:
        start = stream.read(START_BYTES)
    return "is empty" if not start else "is not readable as DICOM" if any(start) else "begins with zeros only"


def _refuse_strays(slices: Sequence[Slice], uid: str, series: Mapping[str, Sequence[Slice]]) -> None:
    """Refuse slices of the same make without SeriesInstanceUID beside slices with one, or the other way round."""
    first, folders = slices[0], {each.file.parent for each in slices}
    for other, members in series.items():
        if uid and other:
            continue
        for each in members:
            if each.file.parent in folders or (each.shape, each.spacing_mm) == (first.shape, first.spacing_mm):
                raise InputError(
                    f"expected one SeriesInstanceUID in all slices, {each.name} has {other or 'none'}, "
                    f"{len(slices)} others have {uid or 'none'}; export the series again"
                )


def _refuse_damaged(slices: Sequence[Slice], uid: str, doubtful: Iterable[_Doubtful]) -> None:
    """Refuse a file that looks like a damaged member of a series: it says so, or is named as its neighbours are."""
    names: dict[Path, set[str]] = defaultdict(set)
    for each in slices:
        names[each.file.parent].add(each.file.name)
    patterns = {
        folder: {pattern for name in members for pattern in _patterns(name)} for folder, members in names.items()
    }
    for doubt in doubtful:
        beside = patterns.get(doubt.file.parent, set())
        if doubt.series_uid:
            suspect = doubt.series_uid == uid
        elif doubt.is_dicom:
            suspect = bool(beside)
        else:
            suspect = not beside.isdisjoint(_patterns(_without_copying_mark(doubt.file.name)))
        if suspect:
            raise InputError(
                f"expected every file of the series to be whole, {doubt.file.name} {doubt.reason}; copy or export it "
                "again, or take it out of the folder if it does not belong there"
            )


def _patterns(name: str) -> set[str]:
    """What the names of a series' files have in common: the ending, and the name without its numbers."""
    lower = name.lower()
    if lower.startswith(".") or lower in NEVER_A_SLICE:  # such as the ._files of macOS
        return set()
    ending = Path(lower).suffix
    shape = NUMBERS.sub("0", HASHES.sub("0", lower))
    return {shape} | ({ending} if ending and not ending[1:].isdigit() else set())


def _without_copying_mark(name: str) -> str:
    """The name of a file that is being copied, once it is there."""
    return name[: -len(Path(name).suffix)] if name.lower().endswith(HALF_COPIED) else name


def _listing(kinds: Counter[str]) -> str:
    return "; ".join(f"{count} × {kind}" for kind, count in kinds.most_common()) or "no file"


def _told(slices: Sequence[Slice]) -> str:
    """A series in a few words: kernel, slice thickness, number of slices."""
    first = slices[0]
    thickness = "" if first.thickness_mm is None else f"{first.thickness_mm:g} mm"
    return ", ".join(filter(None, (first.kernel, thickness, f"{len(slices)} slices")))


def _told_others(series: Mapping[str, Sequence[Slice]]) -> str:
    told = [f"{_told(series[uid])} ({uid or 'without UID'})" for uid in sorted(series)]
    more = f"; and {len(told) - OTHERS_TOLD} more" if len(told) > OTHERS_TOLD else ""
    return "; ".join(told[:OTHERS_TOLD]) + more
