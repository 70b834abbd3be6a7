"""Which DICOM files may be of one scan."""

from __future__ import annotations

import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import SecondaryCaptureImageStorage

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from balaitous.reading.dicom.studies import Origin, are_one, origin_in, two_apart
from helpers.dicom import hu_volume, write_series

ids = st.sampled_from([b"", b"1", b"2"])
origins = st.builds(Origin, ids, ids, ids, ids, st.booleans())


def origin(patient="", study="", series="", frame="", is_slice=True) -> Origin:
    return Origin(*(each.encode() for each in (patient, study, series, frame)), is_slice)


@pytest.mark.parametrize(
    ("one", "other", "belongs"),
    [
        (origin(study="1", frame="3"), origin(study="1", frame="3"), True),
        (origin(study="1", series="2"), origin(study="1", series="2"), True),
        (origin(frame="3"), origin(frame="3"), True),
        (origin(study="1"), origin(study="1"), False),  # a number that an anonymiser may have left everybody
        (origin(patient="a", study="1", frame="3"), origin(patient="b", study="1", frame="3"), False),
        (origin(study="1", frame="3"), origin(study="2", frame="3"), False),
        (origin(study="1"), origin(study="1", is_slice=False), True),
        (origin(), origin(is_slice=False), False),
    ],
)
def test_slices_of_two_folders_are_of_one_scan_where_something_says_so(one, other, belongs):
    assert one.belongs_to(other) is other.belongs_to(one) is belongs
    assert are_one([one, other]) is belongs


@given(st.lists(origins, max_size=6))
def test_whatever_the_headers_say_nothing_depends_on_the_order(several):
    assert are_one(several) == are_one(several[::-1])
    apart = two_apart(several)
    assert (apart is None) == (two_apart(several[::-1]) is None)
    if apart:
        assert several[apart[0]].contradicts(several[apart[1]])
    else:
        assert not any(one.contradicts(other) for one in several for other in several)


def test_the_first_slice_speaks_for_its_folder_not_a_report_or_a_localizer(tmp_path):
    hu = hu_volume((1, 3, 4))
    files = [
        *write_series(tmp_path, hu, prefix="a", SOPClassUID=SecondaryCaptureImageStorage, StudyInstanceUID="1.1"),
        *write_series(tmp_path, hu, prefix="b", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], StudyInstanceUID="1.2"),
    ]
    assert origin_in(files) == Origin(b"", b"1.1", origin_in(files).series, b"", is_slice=False)
    files += write_series(tmp_path, hu, prefix="c", StudyInstanceUID="1.3", PatientID="P", FrameOfReferenceUID="1.4")
    found = origin_in(files)
    assert (found.patient, found.study, found.frame, found.is_slice) == (b"P", b"1.3", b"1.4", True)
    (tmp_path / "notes.txt").write_text("no DICOM")
    assert origin_in([tmp_path / "notes.txt", tmp_path / "gone"]) is None


@pytest.mark.parametrize(
    "tags", [{"StudyInstanceUID": "1.2.{n}"}, {"StudyInstanceUID": "1.2.3", "PatientID": "P{n}"}, {"PatientID": "P{n}"}]
)
def test_studies_of_several_patients_in_one_folder_or_zip_are_refused_unless_a_series_is_chosen(tmp_path, tags):
    for n, slices in ((1, 3), (2, 4)):
        own = {name: value.format(n=n) for name, value in tags.items()} | {
            "SOPInstanceUID": "1.6"
        }  # as is left by some
        write_series(tmp_path / "both", hu_volume((slices, 4, 5)), prefix=f"p{n}_", uid=f"1.7.{n}", **own)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as packed:
        for file in (tmp_path / "both").iterdir():
            packed.write(file, file.name)
    for path in (tmp_path / "both", tmp_path / "both.zip"):
        with pytest.raises(
            InputError, match=r"found several, such as those of p1_000\.dcm and p2_000\.dcm; .* 1\.7\.1"
        ) as caught:
            read_ct(path)
        assert "P1" not in str(caught.value)
        assert read_ct(path, series="1.7.1").hu.shape == (3, 4, 5)


def test_several_series_of_one_study_are_no_reason_to_refuse(tmp_path):
    for n, slices in ((1, 3), (2, 4)):
        write_series(
            tmp_path, hu_volume((slices, 4, 5)), prefix=f"s{n}_", StudyInstanceUID="1.2.3", PatientID="P" * (n - 1)
        )
    assert read_ct(tmp_path).hu.shape == (4, 4, 5)
