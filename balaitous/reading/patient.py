"""Age and sex of the patient: which values the method sees, and where each of them came from.

Sources in the order in which they win, separately for age and for sex: the caller's argument, the image's own header
(DICOM tags for a DICOM series), a side-car ``<name>.json`` next to the image, the published defaults. Ages are written
as in DICOM's AS (PS3.5, 6.2): three digits and D, W, M or Y. An age of 0 in a header, side-car or list is what
anonymisers leave, and counts as unknown; so do `UNKNOWN` texts. A newborn is an argument: ``--age 0``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from balaitous.errors import InputError
from balaitous.reading.documents import read_json

DEFAULT_AGE_YEARS = 65.0  # the published package's value where nothing is known
DEFAULT_SEX = 0.5  # half-way between female (0) and male (1)
AGE_KEYS, SEX_KEYS = ("age", "PatientAge"), ("sex", "PatientSex")  # of a side-car
MAXIMUM_SIDECAR_BYTES = 2**20
MAXIMUM_AGE_YEARS = 120.0  # headers hold slips such as 999Y; nobody older was ever scanned
UNITS_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0, "": 1.0}
SEX_WORDS = {"M": 1.0, "MALE": 1.0, "F": 0.0, "FEMALE": 0.0, "W": 0.0, "O": 0.5, "OTHER": 0.5}  # W: weiblich, woman
SEXES = {**SEX_WORDS, "1": 1.0, "0": 0.0, "0.5": 0.5, "1.0": 1.0, "0.0": 0.0}
UNKNOWN = {"", "N/A", "NA", "NAN", "NONE", "NULL", "U", "UNK", "UNKNOWN", "NOT KNOWN", "-", "--", "?"}


@dataclass(frozen=True)
class Patient:
    """Age and sex as far as known, each with its source.

    Attributes
    ----------
    age_years : age in years, None where unknown
    age_source : "argument", "header", "dicom", "sidecar" or "default"; None where unknown
    sex : 1.0 male, 0.0 female, 0.5 neither or not told; None where nothing was said
    sex_source : as `age_source`
    """

    age_years: float | None = None
    age_source: str | None = None
    sex: float | None = None
    sex_source: str | None = None

    def filled_from(self, other: Patient) -> Patient:
        """This patient, with what is unknown taken from `other`."""
        age = self if self.age_years is not None else other
        sex = self if self.sex is not None else other
        return Patient(age.age_years, age.age_source, sex.sex, sex.sex_source)


def parse_age(text: object) -> float | None:
    """Age in years from a header's text such as ``045Y``, ``006M``, ``012W``, ``003D`` or a bare number of years.

    None for what cannot be an age: empty, unreadable, negative, above `MAXIMUM_AGE_YEARS`. A slip in a header must not
    stop a reading, so such an age counts as not given.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?)([DWMY]?)", text_of(text))
    if match is None:
        return None
    years = float(match[1]) / UNITS_PER_YEAR[match[2]]
    return years if years <= MAXIMUM_AGE_YEARS else None


def format_age(age_years: float) -> str:
    """Age as DICOM writes it, in whole years: ``045Y``."""
    return f"{math.floor(age_years + 0.5):03d}Y"


def parse_sex(value: object) -> float:
    """1.0 for a header's ``M``, 0.0 for ``F``, also as words, 0.5 for anything else, as the published package does."""
    return SEX_WORDS.get(text_of(value), 0.5)


def text_of(value: object) -> str:
    """A value as it is compared: in capitals, without what pads it."""
    return str(value).strip("\0 \t\r\n").upper()


def age_told(value: object) -> object:
    """An age as a header, side-car or list has it; None where it says that it is unknown, or is 0."""
    return None if value is None or text_of(value) in UNKNOWN or parse_age(value) == 0 else value


def sex_told(value: object) -> object:
    """A sex as a header, side-car or list has it; None where it says that it is unknown."""
    return None if value is None or text_of(value) in UNKNOWN else value


def format_sex(sex: float) -> str:
    """Sex as DICOM writes it: ``M``, ``F``, or ``O`` for what is neither."""
    return {1.0: "M", 0.0: "F"}.get(sex, "O")


def from_header(age: object, sex: object, source: str) -> Patient:
    """What a header's two texts say; None, `UNKNOWN` texts, an age of 0 or an impossible one count as not said.

    Parameters
    ----------
    age, sex : contents of ``PatientAge`` and ``PatientSex``, None where absent
    source : "header" or "dicom"
    """
    age_years = parse_age(age_told(age))
    told = sex_told(sex)
    return Patient(
        age_years=age_years,
        age_source=None if age_years is None else source,
        sex=None if told is None else parse_sex(told),
        sex_source=None if told is None else source,
    )


def read_sidecar(path: Path) -> Patient:
    """Age and sex from a JSON object with the keys ``age`` or ``PatientAge`` and ``sex`` or ``PatientSex``.

    Somebody wrote the side-car on purpose, so unlike a header it has to be right, or say that it does not know
    (`UNKNOWN`); other keys are left alone.

    Raises
    ------
    InputError
        The file is not a JSON object, or holds an age or a sex that is none.
    """
    try:
        content = read_json(path, maximum_bytes=MAXIMUM_SIDECAR_BYTES, finite=False)
    except (OSError, ValueError) as error:
        raise InputError(f"expected JSON in the side-car {path.name}, cannot read it ({error}); correct it") from error
    if not isinstance(content, dict):
        raise InputError(
            f'expected a JSON object such as {{"age": 45, "sex": "M"}} in the side-car {path.name}, '
            f"found a {type(content).__name__}; correct or remove it"
        )
    ages, sexes = (age_told(content.get(key)) for key in AGE_KEYS), (sex_told(content.get(key)) for key in SEX_KEYS)
    age, sex = (next((each for each in told if each is not None), None) for told in (ages, sexes))
    try:
        return _given(age, sex, "sidecar")
    except ValueError as error:
        raise InputError(f"side-car {path.name}: {error}") from error


def resolve(stored: Patient, age: float | str | None = None, sex: float | str | None = None) -> Patient:
    """The age and sex that the method uses: arguments, else what is stored, else the defaults.

    Parameters
    ----------
    stored : what header and side-car say
    age : years, 0 to 120, or DICOM's ``045Y``; None where not given
    sex : 1 or "M" male, 0 or "F" female, 0.5 or "O" neither or unknown, also as words; None where not given

    Returns
    -------
    Patient with nothing unknown.

    Raises
    ------
    ValueError
        An argument that is no age or no sex.
    """
    default = Patient(DEFAULT_AGE_YEARS, "default", DEFAULT_SEX, "default")
    return _given(age, sex, "argument").filled_from(stored).filled_from(default)


def _given(age: object, sex: object, source: str) -> Patient:
    """Age and sex that somebody gave on purpose: they must make sense."""
    age_years = None if age is None else parse_age(age)
    if age is not None and age_years is None:
        raise ValueError(f"age must be between 0 and {MAXIMUM_AGE_YEARS:.0f} years. Got {age!r} instead.")
    sex_value = None if sex is None else SEXES.get(text_of(sex))
    if sex is not None and sex_value is None:
        raise ValueError(f'sex must be 1 or "M" (male), 0 or "F" (female) or 0.5 (unknown). Got {sex!r} instead.')
    return Patient(
        age_years=age_years,
        age_source=None if age is None else source,
        sex=sex_value,
        sex_source=None if sex is None else source,
    )
