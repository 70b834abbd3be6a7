"""Scans behind addresses: fetched under their names, removed afterwards, and no word of passwords."""

import importlib.util
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balaitous.cohort.addresses import is_url, local_copy, redacted
from balaitous.ct.volume import CT, read_ct, write_mha
from balaitous.errors import InputError, NoLungError
from helpers.dicom import hu_volume, write_series


@pytest.fixture
def ct(tmp_path) -> CT:
    """A small volume as it is read from DICOM."""
    write_series(tmp_path / "series", hu_volume((12, 40, 40)))
    return read_ct(tmp_path / "series")


def test_a_local_path_is_read_where_it_is(tmp_path):
    for path in (tmp_path / "scan.mha", str(tmp_path / "scan.mha")):
        with local_copy(path) as local:
            assert local == tmp_path / "scan.mha"


@pytest.mark.parametrize("address", ["memory://hospital/a b.nii.gz", "file://{folder}/a b.nii.gz"])
def test_a_copy_has_the_name_and_the_content_and_goes_away(memory, tmp_path, address):
    address = address.format(folder=tmp_path)
    with fsspec.open(address, "wb") as file:
        file.write(b"content")
    with local_copy(address) as local:
        assert local.name == "a b.nii.gz"
        assert local.read_bytes() == b"content"
        assert local != tmp_path / "a b.nii.gz"
        assert sorted(each.name for each in local.parent.iterdir()) == ["a b.nii.gz"]
    assert not local.parent.exists()


def test_a_dicom_folder_is_fetched_with_its_sub_folders(memory, tmp_path, ct):
    memory.put(str(tmp_path / "series"), "/study/ct", recursive=True)
    memory.pipe("/study.json", b'{"age": 41}')
    memory.pipe("/other/file", b"")
    for address in ("memory://study", "memory://study/"):
        with local_copy(address) as local:
            fetched = read_ct(local)
            assert fetched.name == "study"
            assert np.array_equal(fetched.hu, ct.hu)
            assert fetched.patient.age_years == 41
    assert not local.exists()


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_a_header_brings_its_voxels_and_side_car(memory, tmp_path, ct, ending):
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(ct.hu)
    image.SetSpacing(ct.grid.spacing_mm)
    sitk.WriteImage(image, tmp_path / f"scan{ending}")
    for file in tmp_path.glob("scan.*"):
        memory.pipe(f"/bucket/{file.name}", file.read_bytes())
    memory.pipe("/bucket/scan.json", b'{"age": 52, "sex": "F"}')
    with local_copy(f"memory://bucket/scan{ending}") as local:
        fetched = read_ct(local)
    assert np.array_equal(fetched.hu, ct.hu)
    assert (fetched.patient.age_years, fetched.patient.sex) == (52, 0)


def test_voxels_outside_the_headers_folder_are_not_fetched(memory, ct):
    memory.pipe("/secret.raw", bytes(100))
    memory.pipe(
        "/bucket/scan.mhd",
        b"NDims = 3\nDimSize = 1 1 1\nElementType = MET_SHORT\nElementDataFile = ../secret.raw\n",
    )
    with local_copy("memory://bucket/scan.mhd") as local:
        assert not (local.parent.parent / "secret.raw").exists()
        with pytest.raises(InputError, match=r"\.\./secret\.raw lies outside"):
            read_ct(local)


def test_names_that_climb_out_of_the_folder_are_refused(memory):
    memory.pipe("/study/../../outside.dcm", b"DICOM")
    with pytest.raises(InputError, match=r"names inside the folder"), local_copy("memory://study"):
        pass


def test_what_is_not_there_is_named(memory):
    with pytest.raises(InputError, match=r"no such file or folder: memory://b/a\.mha"), local_copy("memory://b/a.mha"):
        pass


def test_voxels_that_are_missing_are_an_error_not_a_guess(memory):
    memory.pipe("/bucket/scan.mhd", b"NDims = 3\nElementDataFile = scan.raw\n")
    with pytest.raises(InputError, match=r"scan\.mhd"), local_copy("memory://bucket/scan.mhd"):
        pass


@pytest.mark.parametrize(("address", "package"), [("s3://bucket/scan.mha", "s3fs"), ("gs://bucket/scan.mha", "gcsfs")])
def test_a_missing_package_is_named(address, package):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(InputError, match=rf"^{address}: .*{package}.*Install it with pip"), local_copy(address):
        pass


def test_an_unknown_kind_of_address_is_refused():
    with pytest.raises(InputError, match=r"nowhere://scan\.mha.*not known"), local_copy("nowhere://scan.mha"):
        pass


def test_errors_about_the_copy_name_the_address(memory):
    memory.pipe("/bucket/scan.mha", b"nonsense")
    with pytest.raises(InputError) as failure, local_copy("memory://bucket/scan.mha") as local:
        read_ct(local)
    assert str(failure.value).startswith("memory://bucket/scan.mha: expected a MetaImage header")
    assert tempfile.gettempdir() not in str(failure.value)


def test_errors_about_the_copy_stay_of_their_kind(memory):
    memory.pipe("/b/a.mha", b"")
    with pytest.raises(NoLungError, match=r"memory://b/a\.mha"), local_copy("memory://b/a.mha") as local:
        raise NoLungError(f"no lung found in {local}")
    with pytest.raises(ZeroDivisionError), local_copy("memory://b/a.mha"):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://bucket/a.mha", "s3://bucket/a.mha"),
        ("sftp://me:pa@ss@host/a.mha", "sftp://me:***@host/a.mha"),
        ("abfs://container@account/a.mha", "abfs://container@account/a.mha"),
        ("https://host/a.mha?X-Amz-Signature=123&e=4", "https://host/a.mha"),
        ("GET 'https://u:p@host/a.mha?s=1' (403)", "GET 'https://u:***@host/a.mha' (403)"),
        (Path("/data/what?/a.mha"), "/data/what?/a.mha"),
    ],
)
def test_passwords_and_signatures_are_not_shown(address, expected):
    assert redacted(address) == expected


@given(
    password=st.text(st.characters(codec="ascii", exclude_characters="/@:?#'\"()", min_codepoint=33), min_size=1),
    host=st.from_regex(r"[a-z]{3}\.[a-z]{2}", fullmatch=True),
)
def test_whatever_the_password_it_is_not_shown(password, host):
    assert redacted(f"ftp://user:{password}@{host}/scan.mha") == f"ftp://user:***@{host}/scan.mha"


def test_a_password_stays_out_of_messages(memory):
    with pytest.raises(InputError) as failure, local_copy("unknown://user:hunter2@host/scan.mha"):
        pass
    assert "hunter2" not in str(failure.value)


def test_only_text_with_a_protocol_is_an_address(tmp_path):
    assert is_url("s3://bucket/a.mha")
    assert not is_url("bucket/a.mha")
    assert not is_url(Path("s3://bucket/a.mha"))


def test_a_fetched_scan_is_read_as_a_local_one(memory, tmp_path, ct):
    write_mha(tmp_path / "scan.mha", ct)
    memory.pipe("/b/scan.mha", (tmp_path / "scan.mha").read_bytes())
    with local_copy("memory://b/scan.mha") as local:
        assert np.array_equal(read_ct(local).hu, read_ct(tmp_path / "scan.mha").hu)
