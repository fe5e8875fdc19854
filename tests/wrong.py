"""What can be wrong with what is handed in of one patient: each maker spoils one thing of a good submission.

`WRONG` has the makers by name; what a maker returns goes to `intake.read` (or, as files, to the service) as it is. The
names are what a sentence about it should be recognised by.
"""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

WRONG: dict = {}  # name to maker(folder, good) -> dict of chart, scans, masks
TOLD: dict[str, str] = {}  # name to a pattern that the sentence must match
SECRET = "Mustermann"  # text that no sentence may repeat
SHAPE = (20, 24, 18)
SCHEMA = {
    "chart": {
        "age": {"kind": "numeric", "unit": "years", "low": 35.0, "high": 80.0, "typical": 60.0},
        "karnofsky": {"kind": "numeric", "unit": "points", "low": 60.0, "high": 100.0, "typical": 80.0},
        "sex": {"kind": "categorical", "levels": ["female", "male"], "typical": "female"},
        "grade": {"kind": "ordered", "levels": ["low", "intermediate", "high"], "typical": "high"},
    },
    "modalities": ["ct", "pt", "t1c", "t2f"],
    "labels": {"1": "necrosis", "2": "oedema", "3": "enhancing"},
    "measured": ["tumour_ml", "enhancing_ml", "sphericity"],
    "measured_typical": {"tumour_ml": 5.0, "enhancing_ml": 3.0, "sphericity": 0.9},
}


@dataclass(frozen=True)
class Submission:
    """What `read` takes of one patient."""

    chart: dict
    scans: dict[str, Path]
    masks: Path

    @property
    def given(self) -> dict:
        return {"chart": dict(self.chart), "scans": dict(self.scans), "masks": self.masks}


def good(folder: Path) -> Submission:
    """A small patient in whom nothing is wrong: CT, PET and two MR on one grid of 3 mm, and a lesion with oedema."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, mask = np.random.default_rng(3), np.zeros(SHAPE, np.uint8)
    mask[6:14, 8:16, 5:13], mask[7:13, 9:15, 6:12], mask[9:11, 11:13, 8:10] = 2, 3, 1
    body = np.zeros(SHAPE, bool)
    body[2:-2, 2:-2, 1:-1] = True
    made = {
        "ct": np.where(body, rng.normal(40, 15, SHAPE), -1000),
        "pt": np.where(body, rng.gamma(2, 0.5, SHAPE), 0) + (mask > 0) * 4,
        "t1c": np.where(body, rng.normal(300, 30, SHAPE), 0) + (mask == 3) * 200,
        "t2f": np.where(body, rng.normal(200, 20, SHAPE), 0) + (mask == 2) * 150,
    }
    scans = {name: _save(folder / f"{name}.nii.gz", values.astype(np.float32)) for name, values in made.items()}
    chart = {"age": 63, "karnofsky": 80, "sex": "female", "grade": "high"}
    return Submission(chart, scans, _save(folder / "mask.nii.gz", mask))


def wrong(told: str):
    """Register a maker, by its own name in words, with what the sentence must say."""

    def keep(maker):
        name = maker.__name__.replace("_", " ").strip()
        assert name not in WRONG
        WRONG[name], TOLD[name] = maker, told
        return maker

    return keep


def _save(path: Path, values: np.ndarray, affine=None, header=None) -> Path:
    image = nib.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine, header)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def _of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def _scan(folder: Path, good: Submission, values: np.ndarray, name: str = "t1c", **more) -> dict:
    """The submission with other voxels of one scan."""
    return good.given | {"scans": good.scans | {name: _save(folder / f"{name}-wrong.nii.gz", values, **more)}}


def _instead(good: Submission, path: Path, name: str = "t1c") -> dict:
    return good.given | {"scans": good.scans | {name: path}}


def _mask(folder: Path, good: Submission, values: np.ndarray, **more) -> dict:
    return good.given | {"masks": _save(folder / "mask-wrong.nii.gz", values, **more)}


def _text(folder: Path, good: Submission, text: str | bytes, name: str = "chart-wrong.json") -> dict:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return good.given | {"chart": path}


def _header(folder: Path, good: Submission, change, name: str = "t1c") -> dict:
    """The submission with one scan whose header was changed, byte by byte; `change` gets the whole file."""
    content = bytearray(gzip.decompress(good.scans[name].read_bytes()))
    change(content)
    path = folder / f"{name}-header.nii.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    return _instead(good, path, name)


def _put(offset: int, numbers, kind: str):
    def change(content: bytearray) -> None:
        raw = np.asarray(numbers, dtype=kind).tobytes()
        content[offset : offset + len(raw)] = raw

    return change


# --- the chart


@wrong("not JSON")
def chart_not_JSON(folder, good):
    return _text(folder, good, '{"age": 63,')


@wrong("no object")
def chart_a_JSON_number(folder, good):
    return _text(folder, good, '"63"')


@wrong("list of 2")
def chart_of_two_patients_in_JSON(folder, good):
    return _text(folder, good, json.dumps([good.chart, good.chart]))


@wrong("2 patients")
def chart_of_two_patients_in_CSV(folder, good):
    return _text(folder, good, "age,sex\n63,male\n64,female\n", "chart.csv")


@wrong("0 patients")
def chart_with_a_header_only(folder, good):
    return _text(folder, good, "age,sex\n", "chart.csv")


@wrong("2 columns but 3 values")
def chart_with_more_values_than_columns(folder, good):
    return _text(folder, good, "age,sex\n63,male,5\n", "chart.csv")


@wrong("UTF-8")
def chart_that_is_a_picture(folder, good):
    return _text(folder, good, b"\x89PNG\r\n\x1a\n\xff\xfe" * 10)


@wrong("KB")
def chart_of_a_megabyte(folder, good):
    return _text(folder, good, json.dumps({"age": "6" * 2**20}))


@wrong("not found")
def chart_that_is_absent(folder, good):
    return good.given | {"chart": folder / "nowhere.json"}


@wrong("not JSON")
def chart_nested_a_hundred_thousand_deep(folder, good):
    return _text(folder, good, "[" * 50_000)


@wrong("twice")
def chart_with_a_column_twice(folder, good):
    return _text(folder, good, '{"age": 63, "age": 64}')


@wrong("unknown column `karnofski`.*`karnofsky`")
def chart_with_a_misspelt_column(folder, good):
    return good.given | {"chart": good.chart | {"karnofski": 80}}


@wrong("unknown to this model")
def chart_with_an_unknown_column(folder, good):
    return good.given | {"chart": good.chart | {f"surname_{SECRET}": SECRET}}


@wrong("outcome")
def chart_with_the_time(folder, good):
    return good.given | {"chart": good.chart | {"time_days": 400}}


@wrong("outcome")
def chart_with_the_event(folder, good):
    return good.given | {"chart": good.chart | {"event": True}}


@wrong("outcome")
def chart_with_another_outcome(folder, good):
    return good.given | {"chart": good.chart | {"vital_status": "dead"}}


@wrong("unknown level.*`intermediate`")
def chart_with_a_misspelt_level(folder, good):
    return good.given | {"chart": good.chart | {"grade": "intermediat"}}


@wrong("unknown level")
def chart_with_an_unknown_level(folder, good):
    return good.given | {"chart": good.chart | {"sex": SECRET}}


@wrong("`age` is not a number")
def chart_with_words_for_a_number(folder, good):
    return good.given | {"chart": good.chart | {"age": f"sixty {SECRET}"}}


@wrong("decimal point")
def chart_with_a_decimal_comma(folder, good):
    return good.given | {"chart": good.chart | {"age": "63,5"}}


@wrong("`age` is not a number")
def chart_with_a_list_for_a_number(folder, good):
    return good.given | {"chart": good.chart | {"age": [63]}}


@wrong("true or false")
def chart_with_a_boolean_for_a_number(folder, good):
    return good.given | {"chart": good.chart | {"age": True}}


@wrong("unknown level")
def chart_with_a_boolean_for_a_level(folder, good):
    return good.given | {"chart": good.chart | {"sex": False}}


@wrong("NaN or infinite")
def chart_with_infinity(folder, good):
    return _text(folder, good, '{"age": 1e999}')


@wrong("`age` is 720.*in months\\?")
def age_in_months(folder, good):
    return good.given | {"chart": good.chart | {"age": 720}}


@wrong("`age` is 23000.*in days\\?")
def age_in_days(folder, good):
    return good.given | {"chart": good.chart | {"age": 23000}}


@wrong("`age` is 0.6.*as a fraction\\?")
def age_as_a_fraction(folder, good):
    return good.given | {"chart": good.chart | {"age": 0.6}}


@wrong("`age` is -63")
def age_below_zero(folder, good):
    return good.given | {"chart": good.chart | {"age": -63}}


@wrong("`karnofsky` is 0.8.*as a fraction\\?")
def karnofsky_as_a_fraction(folder, good):
    return good.given | {"chart": good.chart | {"karnofsky": 0.8}}


@wrong("`karnofsky` is 8,.*digit")
def karnofsky_without_its_zero(folder, good):
    return good.given | {"chart": good.chart | {"karnofsky": 8}}


@wrong("no value")
def chart_with_nothing_known(folder, good):
    return good.given | {"chart": dict.fromkeys(good.chart, None)}


@wrong("no value")
def chart_with_all_written_as_missing(folder, good):
    return _text(folder, good, "age\tsex\nn/a\t\n", "chart.tsv")


# --- the file of a scan


@wrong("no such file")
def scan_that_is_absent(folder, good):
    return _instead(good, folder / "nowhere.nii.gz")


@wrong("a folder")
def scan_that_is_a_folder(folder, good):
    (folder / "inside.nii.gz").mkdir()
    return _instead(good, folder / "inside.nii.gz")


@wrong("empty file")
def scan_that_is_empty(folder, good):
    (folder / "empty.nii.gz").touch()
    return _instead(good, folder / "empty.nii.gz")


@wrong("no image")
def scan_that_is_text(folder, good):
    (folder / "text.nii.gz").write_text("age,sex\n63,male\n" * 40)
    return _instead(good, folder / "text.nii.gz")


@wrong("no image")
def scan_that_is_a_packed_text(folder, good):
    (folder / "text.nii.gz").write_bytes(gzip.compress(b"age,sex\n63,male\n" * 40))
    return _instead(good, folder / "text.nii.gz")


@wrong("no image")
def scan_that_names_another_file(folder, good):
    (folder / "t1c.mha").write_text(f"ObjectType = Image\nNDims = 3\nElementDataFile = {good.masks}\n" * 20)
    return _instead(good, folder / "t1c.mha")


@wrong("a DICOM file")
def scan_that_is_one_DICOM_slice(folder, good):
    (folder / "slice.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 600)
    return _instead(good, folder / "slice.dcm")


@wrong("damaged or cut off")
def scan_with_a_corrupt_gzip(folder, good):
    content = bytearray(good.scans["t1c"].read_bytes())
    content[len(content) // 2 : len(content) // 2 + 60] = b"\xff" * 60
    (folder / "corrupt.nii.gz").write_bytes(content)
    return _instead(good, folder / "corrupt.nii.gz")


@wrong("damaged or cut off")
def scan_with_a_wrong_check_sum(folder, good):
    content = bytearray(good.scans["t1c"].read_bytes())
    content[-6] ^= 0xFF
    (folder / "sum.nii.gz").write_bytes(content)
    return _instead(good, folder / "sum.nii.gz")


@wrong("damaged or cut off")
def scan_that_was_cut_off(folder, good):
    content = good.scans["t1c"].read_bytes()
    (folder / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    return _instead(good, folder / "cut.nii.gz")


@wrong("cut off after")
def scan_that_was_cut_off_before_it_was_packed(folder, good):
    content = gzip.decompress(good.scans["t1c"].read_bytes())
    (folder / "cut.nii").write_bytes(content[: len(content) // 2])
    return _instead(good, folder / "cut.nii")


@wrong("unpacks to more")
def scan_that_is_a_zip_bomb(folder, good):
    with gzip.open(folder / "bomb.nii.gz", "wb", compresslevel=9) as out:
        out.write(gzip.decompress(good.scans["t1c"].read_bytes()))
        for _ in range(64):
            out.write(bytes(2**20))
    return _instead(good, folder / "bomb.nii.gz")


@wrong("voxels, expected")
def scan_with_a_header_of_32767_cubed(folder, good):
    return _header(folder, good, _put(42, [32767] * 3, "<i2"))


@wrong("damaged header")
def scan_with_a_header_of_negative_size(folder, good):
    return _header(folder, good, _put(42, [-20], "<i2"))


@wrong("damaged header")
def scan_with_its_voxels_in_another_file(folder, good):
    return _header(folder, good, _put(344, [ord("n"), ord("i")], "u1"))


# --- what a scan shows


@wrong("4-D image")
def scan_of_four_dimensions(folder, good):
    return _scan(folder, good, np.stack([_of(good.scans["t1c"])] * 3, axis=-1))


@wrong("2-D image")
def scan_of_two_dimensions(folder, good):
    return _scan(folder, good, _of(good.scans["t1c"])[:, :, 0])


@wrong("2-D image")
def scan_of_one_slice(folder, good):
    return _scan(folder, good, _of(good.scans["t1c"])[:, :, :1])


@wrong("complex or colours")
def scan_of_complex_numbers(folder, good):
    return _scan(folder, good, _of(good.scans["t1c"]).astype(np.complex64))


@wrong("complex or colours")
def scan_in_colour(folder, good):
    grey = _of(good.scans["t1c"]).astype(np.uint8)
    colour = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for name in colour.dtype.names:
        colour[name] = grey
    return _scan(folder, good, colour)


@wrong("no voxel is a number")
def scan_of_NaN(folder, good):
    return _scan(folder, good, np.full(SHAPE, np.nan, np.float32))


@wrong("no voxel is a number")
def scan_of_infinity(folder, good):
    return _scan(folder, good, np.full(SHAPE, np.inf, np.float32))


@wrong("every voxel is 7")
def scan_that_is_constant(folder, good):
    return _scan(folder, good, np.full(SHAPE, 7, np.float32))


@wrong("does not look at")
def scan_of_a_wrong_modality(folder, good):
    return good.given | {"scans": good.scans | {"dwi": good.scans["t1c"]}}


@wrong("same image")
def scan_given_under_two_names(folder, good):
    return _instead(good, good.scans["t2f"])


@wrong("none given")
def no_scan_at_all(folder, good):
    return good.given | {"scans": {}}


@wrong("lowest value 24, expected air")
def ct_without_its_intercept(folder, good):
    return _scan(folder, good, _of(good.scans["ct"]) + 1024, "ct")


@wrong("lowest value 0, expected air")
def mr_given_as_ct(folder, good):
    return good.given | {"scans": {"ct": good.scans["t1c"]}}


@wrong("as CT has")
def ct_given_as_t1c(folder, good):
    return good.given | {"scans": {"t1c": good.scans["ct"]}}


@wrong("as CT has")
def ct_given_as_pet(folder, good):
    return good.given | {"scans": {"pt": good.scans["ct"]}}


@wrong("expected SUV")
def pet_in_becquerel(folder, good):
    return _scan(folder, good, _of(good.scans["pt"]) * 5000, "pt")


@wrong("as a mask has")
def mask_given_as_a_scan(folder, good):
    return _instead(good, good.masks)


SFORM = 280  # byte of its twelve numbers


@wrong("a sform that is no place")
def scan_without_spacing(folder, good):
    return _header(folder, good, _put(SFORM, np.zeros(12), "<f4"))


@wrong("a sform that is no place")
def scan_with_a_spacing_of_NaN(folder, good):
    return _header(folder, good, _put(SFORM, [np.nan], "<f4"))


@wrong("voxels of 0.003")
def scan_in_metres(folder, good):
    return _header(folder, good, _put(SFORM, np.diag([0.003] * 3 + [0])[:3], "<f4"))


@wrong("voxels of 3e.03")
def scan_in_millimetres_called_metres(folder, good):
    return _header(folder, good, _put(123, [1], "u1"))


@wrong("right angles")
def scan_that_is_sheared(folder, good):
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[0, 2] = 1.5
    path = folder / "sheared.nii.gz"
    image = nib.Nifti1Image(_of(good.scans["t1c"]), affine)
    image.set_qform(None, code=0)
    nib.save(image, path)
    return _instead(good, path)


# --- the mask


@wrong("no such file")
def mask_that_is_absent(folder, good):
    return good.given | {"masks": folder / "nowhere.nii.gz"}


@wrong("mask.*none given")
def no_mask_at_all(folder, good):
    return good.given | {"masks": None}


@wrong("none given")
def mask_of_one_scan_only(folder, good):
    return good.given | {"masks": {"t1c": good.masks}}


@wrong("mask: a modality.*does not look at")
def mask_of_a_wrong_modality(folder, good):
    return good.given | {"masks": {"dwi": good.masks}}


@wrong("no voxel of the tumour")
def mask_that_is_empty(folder, good):
    return _mask(folder, good, np.zeros(SHAPE, np.uint8))


@wrong("no voxel of the tumour, expected some of 1 necrosis, 3 enhancing;")
def mask_of_oedema_alone(folder, good):
    return _mask(folder, good, (_of(good.masks) > 0).astype(np.uint8) * 2)


@wrong("unknown label 4, 7")
def mask_with_unknown_labels(folder, good):
    return _mask(folder, good, np.where(_of(good.masks) == 3, 4, _of(good.masks) * 7))


@wrong("unknown label -1")
def mask_with_a_negative_label(folder, good):
    return _mask(folder, good, np.where(_of(good.masks) == 2, np.int16(-1), _of(good.masks).astype(np.int16)))


@wrong("no whole numbers")
def mask_of_fractions(folder, good):
    return _mask(folder, good, _of(good.masks).astype(np.float32) / 2)


@wrong("no whole numbers")
def mask_with_NaN(folder, good):
    values = _of(good.masks).astype(np.float32)
    values[0, 0, 0] = np.nan
    return _mask(folder, good, values)


@wrong("whole image")
def mask_of_the_whole_image(folder, good):
    return _mask(folder, good, np.full(SHAPE, 3, np.uint8))


@wrong("lies within it")
def mask_in_another_place(folder, good):
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = 500
    return _mask(folder, good, _of(good.masks), affine=affine)


@wrong("lies within it")
def mask_half_out_of_the_scan(folder, good):
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[0, 3] = 3 * 11
    return _mask(folder, good, _of(good.masks), affine=affine)


@wrong("background")
def mask_in_the_background(folder, good):
    values = np.zeros(SHAPE, np.uint8)
    values[:2, :, :] = 3
    return _mask(folder, good, values)


@wrong("as a scan has")
def scan_given_as_the_mask(folder, good):
    return good.given | {"masks": good.scans["t1c"]}


@wrong("as a scan has")
def scan_of_whole_numbers_given_as_the_mask(folder, good):
    return _mask(folder, good, _of(good.scans["t1c"]).astype(np.int16))


# --- a folder


@wrong("no such folder")
def folder_that_is_absent(folder, good):
    return good.given | {"scans": folder / "nowhere"}


@wrong("no file in the folder")
def folder_that_is_empty(folder, good):
    (folder / "bare").mkdir()
    return good.given | {"scans": folder / "bare"}


@wrong("no CT, MR or PET")
def folder_of_text(folder, good):
    (folder / "texts").mkdir()
    (folder / "texts" / f"{SECRET}.txt").write_text("a letter")
    return good.given | {"scans": folder / "texts"}


@wrong("2 patients in the folder")
def folder_of_two_patients(folder, good):
    place = folder / "several"
    place.mkdir()
    for name in (f"sub-{SECRET}_ce-gd_T1w", "sub-2_FLAIR"):
        (place / f"{name}.nii.gz").write_bytes(good.scans["t1c"].read_bytes())
    return good.given | {"scans": place}


@wrong("both")
def folder_with_two_of_one_modality(folder, good):
    place = folder / "twice"
    place.mkdir()
    for name in ("sub-1_ce-gd_T1w", "sub-1_ce-gd_run-2_T1w"):
        (place / f"{name}.nii.gz").write_bytes(good.scans["t1c"].read_bytes())
    return good.given | {"scans": place}


@wrong("known by its name")
def folder_of_scans_with_strange_names(folder, good):
    place = folder / "strange"
    place.mkdir()
    (place / f"{SECRET}.nii.gz").write_bytes(good.scans["t1c"].read_bytes())
    return good.given | {"scans": place}


@wrong("link that leads out")
def folder_with_a_link_out_of_it(folder, good):
    place = folder / "linked"
    place.mkdir()
    (place / "sub-1_ce-gd_T1w.nii.gz").symlink_to(good.scans["t1c"])
    return good.given | {"scans": place}


@wrong("deflate")
def folder_of_deflated_DICOM(folder, good):
    place = folder / "deflated"
    place.mkdir()
    (place / "1.dcm").write_bytes(
        b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI\x16\0" + b"1.2.840.10008.1.2.1.99" + bytes(300)
    )
    return good.given | {"scans": place}
