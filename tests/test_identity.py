"""Nobody comes out of DICOM: names in sixty places and ten spellings, ids that are names, sentences that repeat a header."""

import gzip
import json
import re
import unicodedata

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from survpack import privacy
from survpack.dicom import convert, personal
from survpack.dicom.sidecar import facts_of
from survpack.dicom.terms import TERMS
from survpack.errors import BadInput

STORAGE = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4"}
STRUCTURES, CAPTURE = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.840.10008.5.1.4.1.1.7"
FRAME = generate_uid(entropy_srcs=["identity"])

# A name in the header, and how else it may be spelt in it.
SPELT = {
    "Müller^Jürgen": ["Müller^Jürgen", "Muller", "Mueller", "MUELLER_J", "Dr. Müller", "Juergen-Muller", "jürgen.müller",
                      "Muller2", "JürgenMüller", "MÜLLER"],
    "O'Brien^Jean-Luc": ["O'Brien", "OBrien", "O Brien", "o-brien", "JeanLuc", "Jean Luc", "Jean.Luc", "obrien_7", "J. O’Brien",
                         "Jean-Luc"],
    "Yamada^Tarou=山田^太郎=やまだ^たろう": ["Yamada", "YAMADA_TAROU", "山田", "太郎", "山田太郎", "やまだ", "たろう", "Tarou2", "ﾔﾏﾀﾞ",
                                          "YamadaTarou"],
    "Иванов^Иван": ["Иванов", "ИВАНОВ", "Иван", "Иванов2", "И. Иванов", "иванов_иван", "ИвановИван", "Dr Иванов", "Иванов-Иван",
                    "ИВАН"],
    "Philips^Long": ["Philips", "PHILIPS", "Philips Medical Systems", "Long", "LONG 3", "Long-Philips", "philips_long", "PhilipsLong",
                     "Philips2", "Dr. Long"],
    "Li^Bo": ["Li", "LI", "Bo Li", "LiBo", "li_bo", "Li2", "BoLi", "LI^BO", "Li-Bo", "bo.li"],
}  # fmt: skip

# Beside those of `plant` that are no keyword: sequences, private tags, overlays, the file's own meta.
_PLACES = """
PatientName PatientBirthName PatientMotherBirthName OtherPatientNames OtherPatientIDs PatientComments PatientAddress
ReferringPhysicianName OperatorsName PerformingPhysicianName NameOfPhysiciansReadingStudy PhysiciansOfRecord
RequestingPhysician ResponsiblePerson InstitutionName InstitutionAddress InstitutionalDepartmentName StationName
AccessionNumber StudyID StudyDescription SeriesDescription ProtocolName ImageComments DerivationDescription
AcquisitionComments AcquisitionDeviceProcessingDescription ContrastBolusAgent RequestedProcedureDescription
PerformedProcedureStepDescription AdmittingDiagnosesDescription AdditionalPatientHistory MedicalAlerts Occupation
ClinicalTrialSubjectID ClinicalTrialSponsorName ClinicalTrialSiteName ReasonForStudy IssuerOfPatientID DeviceSerialNumber
SoftwareVersions SequenceName PositionReferenceIndicator LossyImageCompressionMethod VerifyingOrganization
Manufacturer ManufacturerModelName BodyPartExamined PatientPosition ConvolutionKernel FilterType ScanningSequence
SequenceVariant MRAcquisitionType Units CorrectedImage DecayCorrection ReconstructionMethod AttenuationCorrectionMethod
ScatterCorrectionMethod Radiopharmaceutical KVP SliceThickness
"""
PLACES = _PLACES.split()


def dataset(modality, storage, uid, **tags):
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = storage, uid, modality
    ds.PatientID, ds.StudyDate, ds.FrameOfReferenceUID = "P1", "20190412", FRAME
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = storage, uid
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in tags.items():
        setattr(ds, name, value)
    return ds


def series(folder, modality="CT", patient="P1", change=lambda ds: None, storage=None, count=4, **tags):
    """Axial slices of 6 × 5 voxels with all that an image needs; `change` is done to each header at the last."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        uid = generate_uid(entropy_srcs=[str(folder), patient, modality, str(number)])
        ds = dataset(modality, storage or STORAGE[modality], uid, PatientID=patient, **tags)
        ds.SeriesInstanceUID = generate_uid(entropy_srcs=[str(folder), patient, modality])
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 4.0 * number]
        ds.PixelSpacing, ds.Rows, ds.Columns = [2, 2], 5, 6
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024 if modality == "CT" else 0
        ds.PixelData = np.arange(30, dtype=np.int16).tobytes()
        change(ds)
        files.append(folder / f"IM{number}")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def structures(folder, image, regions, **tags):
    """An RTSTRUCT with one square a region, on the first slice."""
    first = pydicom.dcmread(image)
    ds = dataset("RTSTRUCT", STRUCTURES, generate_uid(), SeriesInstanceUID=generate_uid(), **tags)
    frame, study, named = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID, named.SeriesInstanceUID = FRAME, first.SeriesInstanceUID
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [named], [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, name in enumerate(regions, 1):
        roi, drawn, contour = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, FRAME
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
        contour.ContourData = [1, 1, 0, 7, 1, 0, 7, 7, 0, 1, 7, 0]
        drawn.ReferencedROINumber, drawn.ContourSequence = number, [contour]
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    ds.save_as(folder / "RS", enforce_file_format=True)


def put(ds, keyword, text):
    """A text in a field, whatever the field should hold."""
    tag = tag_for_keyword(keyword)
    kind = dictionary_VR(tag)
    written = text.encode() if kind in ("PN", "LO", "SH", "ST", "LT", "UT") else text.encode("ascii", "replace")
    ds[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(written), written, 0, False, True)


def plant(ds, name, spelt):
    """A name in each place of a header, in one spelling after the other; how many places."""
    texts = [spelt[number % len(spelt)] for number in range(100)]
    for keyword in PLACES[1:]:
        put(ds, keyword, texts.pop())
    ds.PatientName, ds.SeriesDescription = name, f"T1 {spelt[2]}"
    nested, deeper = Dataset(), Dataset()
    nested.RequestedProcedureDescription, nested.ScheduledPerformingPhysicianName = texts.pop(), texts.pop()
    deeper.CodeMeaning, deeper.PatientName = texts.pop(), name
    nested.RequestedProcedureCodeSequence = Sequence([deeper])
    ds.RequestAttributesSequence = Sequence([nested])
    ds.private_block(0x0099, texts.pop()[:16], create=True).add_new(0x01, "LO", texts.pop())
    ds.private_block(0x0009, "GEMS_IDEN_01", create=True).add_new(0x02, "SH", texts.pop())
    ds.add_new(0x60000022, "LO", texts.pop())
    ds.add_new(0x60001500, "LO", texts.pop())
    ds.file_meta.SourceApplicationEntityTitle = texts.pop().encode("ascii", "replace").decode()[:16]
    return 100 - len(texts) + 2


def everything_in(folder):
    """Names and texts of all files, those of .gz unpacked."""
    for path in folder.rglob("*"):
        yield str(path.relative_to(folder))
        if path.is_file():
            content = path.read_bytes()
            yield (content + (gzip.decompress(content) if path.suffix == ".gz" else b"")).decode("utf-8", "replace")


def parts_of(name, spelt):
    """What must not be found: every run of letters of a name and its spellings, without accents and with them."""
    words = {word for text in [name, *spelt] for word in re.findall(r"[^\W\d_]{2,}", text.casefold())}
    bare = {"".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)) for word in words}
    return (words | bare) - {"dr", "medical", "systems"}


def holds(text, part):
    """Two Latin letters as a word alone: "li" is in FlipAngle."""
    short = len(part) == 2 and part.isascii()
    return bool(re.search(rf"(?<![a-z]){part}(?![a-z])", text)) if short else part in text


# --- what is written


@pytest.mark.parametrize("name", SPELT)
@pytest.mark.parametrize("turn", range(10))  # so that each place has each spelling once
def test_a_name_planted_in_sixty_places_and_spelt_in_ten_ways_is_in_no_byte_of_the_output(tmp_path, name, turn):
    spelt = SPELT[name][turn:] + SPELT[name][:turn]
    place, counted = tmp_path / "in" / spelt[1].replace("/", "_"), []
    files = series(place, "MR", change=lambda ds: counted.append(plant(ds, name, spelt)))
    structures(place, files[0], [f"GTV {spelt[3]}"], StructureSetLabel=spelt[4][:16], PatientName=name)
    told = convert(tmp_path / "in", tmp_path / "out", key=tmp_path / "key.tsv")
    assert counted[0] + 3 > 70 and list((tmp_path / "out").rglob("*_T1w.nii.gz"))
    texts = [*everything_in(tmp_path / "out"), *(line.replace("/", " ") for line in told)]
    for text in texts:
        found = [part for part in parts_of(name, spelt) if holds(text.casefold(), part)]
        assert not found, f"{found} in {text[:300]}"
    facts = json.loads(next((tmp_path / "out").rglob("*_T1w.json")).read_text())
    assert set(facts) <= {"Modality", "MeasuredAs"} and facts["Modality"] == "MR"


@pytest.mark.parametrize("name", SPELT)
def test_a_name_that_stands_otherwise_spelt_in_a_field_that_may_be_written_is_not(name):
    """The header tells the name once; each spelling stands alone in each allowed field, whatever the field is for."""
    for spelt in SPELT[name]:
        for keyword in privacy.ALLOWED[1:]:
            head = dataset("CT", STORAGE["CT"], "1.2.3", PatientName=name)
            put(head, keyword, spelt)
            assert facts_of(head, {}) == {"Modality": "CT"}, (keyword, spelt)


REAL = {
    "Manufacturer": "SIEMENS", "ManufacturerModelName": "Biograph64_mCT", "BodyPartExamined": "CHEST", "PatientPosition": "HFS",
    "SliceThickness": 3, "KVP": 120, "XRayTubeCurrent": 250, "ConvolutionKernel": "B30f", "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP"], "MRAcquisitionType": "3D", "EchoTime": 4.6, "Units": "BQML", "DecayCorrection": "START",
    "CorrectedImage": ["DECY", "ATTN"], "ReconstructionMethod": "PSF+TOF 2i21s", "FilterType": "WEDGE_2",
    "AttenuationCorrectionMethod": "CT-derived mu-map", "ScatterCorrectionMethod": "Model-based",
}  # fmt: skip


def test_what_is_kept_of_a_real_header_is_all_that_tells_how_the_image_was_made():
    head = dataset("CT", STORAGE["CT"], "1.2.3", PatientName="Doe^Jane", InstitutionName="Siemens Hospital of Chest Medicine",
                   StationName="BIOGRAPH64", SeriesDescription="Thorax 3.0 B30f", ProtocolName="CHEST PSF+TOF",
                   OperatorsName="Siemens", StudyDescription="PET/CT with contrast", **REAL)  # fmt: skip
    assert facts_of(head, {}) == {"Modality": "CT", **REAL}


@pytest.mark.parametrize(
    "maker", ["SIEMENS", "Siemens Healthineers", "GE MEDICAL SYSTEMS", "Philips", "Philips Medical Systems", "TOSHIBA", "CPS",
              "Canon Medical Systems", "Hitachi, Ltd.", "FUJIFILM Corporation", "UIH", "Varian Medical Systems"])  # fmt: skip
@pytest.mark.parametrize(
    "keyword", ["InstitutionName", "StationName", "StudyDescription", "OperatorsName", "PatientComments"]
)
def test_a_maker_survives_that_is_also_written_where_people_are(maker, keyword):
    head = dataset("CT", STORAGE["CT"], "1.2.3", PatientName="Doe^Jane", Manufacturer=maker)
    put(head, keyword, maker)
    assert facts_of(head, {})["Manufacturer"] == maker


@pytest.mark.parametrize(
    "model", ["LightSpeed VCT", "LightSpeed16", "Discovery CT750 HD", "GENESIS_SIGNA", "SIGNA HDxt", "Sensation 64", "TrioTim",
              "SOMATOM Definition AS+", "MAGNETOM Vida", "Ingenuity TF PET/CT", "Aquilion ONE", "Achieva dStream", "uMR 780"]
)  # fmt: skip
def test_scanners_are_known_by_their_names(model):
    assert (
        facts_of(dataset("MR", STORAGE["MR"], "1.2.3", ManufacturerModelName=model), {})["ManufacturerModelName"]
        == model
    )


@pytest.mark.parametrize(
    "keyword", ["PatientComments", "StationName", "OperatorsName", "InstitutionName", "OtherPatientNames"]
)
@pytest.mark.parametrize(
    "field", ["ManufacturerModelName", "ConvolutionKernel", "BodyPartExamined", "FilterType", "KVP"]
)
def test_a_name_that_stands_in_any_field_but_the_patients_is_not_written_either(keyword, field):
    head = dataset("CT", STORAGE["CT"], "1.2.3")
    put(head, keyword, "Kowalski")
    put(head, field, "KOWALSKI")
    assert "KOWALSKI" not in json.dumps(facts_of(head, {}))


@pytest.mark.parametrize(
    "text", ["Kowalski", "Lee", "S m i t h", "S.M.I.T.H", "Smith2", "Kernel of Roe", "Doe B30f", "Ng", "王", "4711047"]
)
def test_a_text_that_is_no_word_of_the_trade_is_not_written_whatever_the_header_tells(text):
    head = dataset("CT", STORAGE["CT"], "1.2.3")
    put(head, "ManufacturerModelName", text)
    put(head, "ConvolutionKernel", text)
    assert facts_of(head, {}) == {"Modality": "CT"}


@pytest.mark.parametrize("keyword", [keyword for keyword in TERMS if keyword != "Modality"])
def test_a_coded_field_holds_terms_of_the_standard_or_nothing(keyword):
    head = dataset("CT", STORAGE["CT"], "1.2.3")
    for text in ("DOE", "Doe^John", "JOHN", "HFS DOE", "X"):
        put(head, keyword, text)
        assert keyword not in facts_of(head, {})
    put(head, keyword, f"DOE\\{sorted(TERMS[keyword])[0].lower()}")
    assert facts_of(head, {}).get(keyword) == [sorted(TERMS[keyword])[0]]


@pytest.mark.parametrize("number", ["19310317", "inf", "nan", "DOE", "4711047"])
def test_a_field_of_numbers_holds_no_text_no_date_and_no_id(number):
    head = dataset("CT", STORAGE["CT"], "1.2.3", PatientID="4711047", PatientBirthDate="19310317")
    put(head, "Exposure", number)
    assert "Exposure" not in facts_of(head, {})


def test_a_short_id_or_station_takes_no_number_with_it():
    head = dataset("MR", STORAGE["MR"], "1.2.3", PatientID="40", DeviceSerialNumber="5000", StudyID="3", RepetitionTime=5000,
                   ManufacturerModelName="Biograph 40", MagneticFieldStrength=3)  # fmt: skip
    kept = facts_of(head, {})
    assert (kept["RepetitionTime"], kept["MagneticFieldStrength"], kept["ManufacturerModelName"]) == (
        5000,
        3,
        "Biograph 40",
    )


def test_nothing_that_gzip_stores_tells_a_name_or_a_time(tmp_path):
    series(tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    packed = next((tmp_path / "out").rglob("*.nii.gz")).read_bytes()
    assert packed[3] == 0 and packed[4:8] == b"\0\0\0\0"  # FLG, MTIME of RFC 1952


# --- how names are compared


@pytest.mark.parametrize("name", [name for name in SPELT if name != "Li^Bo"])
def test_every_spelling_of_a_name_is_known_again(name):
    secrets = personal.secrets_of(dataset("CT", STORAGE["CT"], "1.2.3", PatientName=name))
    ours = [text for text in SPELT[name] if "Systems" not in text]
    assert [text for text in ours if not personal.repeats(text, secrets)] == []


def test_a_short_name_is_known_as_a_word_alone():
    secrets = personal.secrets_of(dataset("CT", STORAGE["CT"], "1.2.3", PatientName="Li^An"))
    assert all(personal.repeats(text, secrets) for text in ["Li", "An Li", "LiAn", "li_an", "Li2", "CT of LI"])
    assert not any(personal.repeats(text, secrets) for text in ["Philips", "Anterior", "SPLIT", "Canon", "FlipAngle"])


def test_a_name_of_single_ideographs_is_known_alone_and_joined():
    secrets = personal.secrets_of(dataset("CT", STORAGE["CT"], "1.2.3", PatientName="Wang^Fang=王^芳"))
    assert all(personal.repeats(text, secrets) for text in ["王", "芳 1", "王芳", "芳王2", "wang_f", "WANGFANG"])
    assert not personal.repeats(
        "王国", personal.secrets_of(dataset("CT", STORAGE["CT"], "1.2.3", PatientName="Li^An=李^安"))
    )


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="aäåbcdeéèfghiïjklmnñoöøpqrsßtuüvwxyzłč'- ", min_size=4, max_size=12), st.integers(0, 5))
def test_a_name_is_known_again_in_another_case_without_accents_or_between_other_letters(name, way):
    known = personal.folded(name)
    if len(re.sub(r"[\W_]", "", known)) < 4 or re.search(r"(?<![^\W\d_])[^\W\d_](?![^\W\d_])", known):
        return
    plain = "".join(one for one in unicodedata.normalize("NFD", name) if not unicodedata.combining(one))
    german = name.replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    spelt = [name.upper(), plain, german, re.sub(r"[' -]", "", name), f"scan_{name}_2", f"{name}, J."][way]
    secrets = personal.secrets_of(dataset("CT", STORAGE["CT"], "1.2.3", PatientName=f"{name}^Xaver"))
    assert personal.repeats(spelt, secrets)


# --- ids


@pytest.mark.parametrize(
    ("name", "number"),
    [("Smith^John", "SMITH^JOHN"), ("Smith^John", "JohnSmith"), ("Smith^John", "smith_j"), ("Smith^John", "SMITHJ01"),
     ("Müller^Jürgen", "MUELLER-1"), ("O'Brien^Mary", "obrien48"), ("Li^Wei", "LiWei"), ("Li^Wei", "LI-001"),
     ("Yamada^Tarou=山田^太郎", "YAMADA7"), ("Jean-Luc^Picard", "JL_Picard"), ("Smith", "SMITH"), ("Smith^John", "J.Smith")],
)  # fmt: skip
def test_an_id_made_of_the_name_is_not_kept_and_not_told(tmp_path, name, number):
    series(tmp_path / "in", patient=number, PatientName=name)
    with pytest.raises(BadInput, match="--keep-ids: a PatientID has .*name.*use --key FILE") as told:
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert not personal.repeats(str(told.value), personal.folded(number) and {personal.folded(number)})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("born", ["19480413", "480413", "13041948", "04131948", "P130448", "4711-19480413"])
def test_an_id_made_of_the_date_of_birth_is_not_kept(tmp_path, born):
    series(tmp_path / "in", patient=born, PatientBirthDate="19480413")
    with pytest.raises(BadInput, match="a PatientID has (a date|the date of birth)"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)


@pytest.mark.parametrize(
    "number", ["LUNG1-001", "STS_002", "TCGA-02-0006", "UPENN-GBM-00001_11", "HN-CHUM-001", "R01-001", "AMC-001", "interobs05",
               "C3L-00016", "100012", "1.3.6.1.4.1.9328.50.4.0001", "BraTS20_Training_001", "P1", "MRN777"]
)  # fmt: skip
def test_pseudonyms_of_public_sets_are_kept_where_the_name_is_the_id(tmp_path, number):
    series(tmp_path / "in", patient=number, PatientName=number)
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    kept = re.sub(r"[^A-Za-z0-9]", "", number)
    assert (tmp_path / "out" / f"sub-{kept}").is_dir() and not any("--keep-ids" in line for line in told)


@pytest.mark.parametrize("name", ["", "ANON"])
@pytest.mark.parametrize(
    "number", ["Mueller_Juergen", "DOE JOHN", "Smith, John", "MüllerAna", "DOE^JOHN", "Smith2_John", "sub-Doe-Jane", "DOE J"])  # fmt: skip
def test_an_id_of_two_words_is_a_name_whatever_the_header_calls_the_patient(tmp_path, number, name):
    series(tmp_path / "in", patient=number, PatientName=name, SpecificCharacterSet="ISO_IR 192")
    with pytest.raises(BadInput, match="--keep-ids: a PatientID has a name") as refused:
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert number not in str(refused.value)


@pytest.mark.parametrize(
    "number", ["MUELLER", "Müller", "JM480413", "MUEL1948", "1948-MUEL", "JM_130448", "Jm13041948", "480413JM"]
)
def test_an_id_of_one_word_or_of_letters_and_what_may_be_a_birth_is_kept_with_a_warning_or_refused(tmp_path, number):
    series(tmp_path / "in", patient=number, SpecificCharacterSet="ISO_IR 192")
    try:
        told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    except BadInput as error:
        told = [str(error)]
    told = [line for line in told if line.startswith("--keep-ids")]
    assert told and all("--key FILE" in line and number not in line for line in told)


@pytest.mark.parametrize(
    "numbers",
    [["LUNG1-001"], ["TCGA-02-0006"], ["UPENN-GBM-00001"], ["R01-001"], ["AMC-001"], ["BraTS-MET-00086-000"], ["interobs05"],
     ["CHUM-001"], ["HN-CHUM-001"], ["case_00210"], ["RHUH-0001"], ["P01"], ["sub-001"], ["control_a"], ["phantom_water"],
     ["HN1004", "HN1022", "HN1950", "HN1954", "HN1087", "HN1118", "HN1327"]],
)  # fmt: skip
def test_ids_of_public_sets_are_no_names_and_no_births_be_some_of_them_like_years(numbers):
    assert privacy.column_telltales(pd.Series(numbers), "patient_id") == []


def test_an_id_like_a_hospitals_number_is_kept_with_a_warning_that_does_not_repeat_it(tmp_path):
    series(tmp_path / "in", patient="4711047")
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("long number, as a hospital gives patients" in line and "--key" in line for line in told)
    assert not any("4711047" in line for line in told if line.startswith("--keep-ids"))


def test_numbers_do_not_follow_from_the_ids(tmp_path, monkeypatch):
    """Whoever knows the ids of a hospital could else work out who is who."""
    orders = set()
    for number in range(8):
        for patient in "ABCDE":
            series(tmp_path / "in" / patient, patient=patient, count=3)
        convert(tmp_path / "in", tmp_path / f"out{number}", key=tmp_path / f"key{number}.tsv")
        key = pd.read_csv(tmp_path / f"key{number}.tsv", sep="\t")
        assert sorted(key["participant_id"]) == [f"sub-{k:03d}" for k in range(1, 6)]
        orders.add(tuple(key.sort_values("participant_id")["patient_id"]))
    assert len(orders) > 1


# --- sentences


def test_no_sentence_repeats_a_description_or_a_name(tmp_path):
    """Left out by its name, as a second of a kind, for a gap, for many frames; and a region called after someone."""
    who = {"PatientName": "Quixote^Alonso", "OperatorsName": "Panza^Sancho"}
    files = series(tmp_path / "in" / "Quixote" / "a", SeriesDescription="Rocinante", SeriesNumber=7, **who)
    series(tmp_path / "in" / "alonso_q" / "b", SeriesDescription="Rocinante 2", count=3, SeriesNumber=8, **who)
    series(tmp_path / "in" / "c", "MR", SeriesDescription="for Panza", **who)
    series(tmp_path / "in" / "Rocinante", "MR", patient="P2", SeriesDescription="T1 Rocinante", count=2, **who)
    structures(tmp_path / "in", files[0], ["GTV Quixote", "Heart Sancho"], **who)
    told = convert(tmp_path / "in", tmp_path / "out", key=tmp_path / "key.tsv")
    everything = "\n".join(told).replace(str(tmp_path), "")
    assert not re.search("quixote|alonso|panza|sancho|rocinante", everything, re.IGNORECASE)
    assert "series CT 8 (3 slices) in" in everything and "series MR (4 slices) in" in everything
    assert "mask from GTV …" in everything


def test_the_folder_is_told_where_it_repeats_no_header(tmp_path):
    series(tmp_path / "in" / "wednesday", patient="P2", count=2, SeriesDescription="secret words")
    with pytest.raises(BadInput, match=r"series CT \(2 slices\) in \S+/in/wednesday: 2 slices"):
        convert(tmp_path / "in", tmp_path / "out", keep_ids=True)


def test_a_pattern_that_repeats_a_name_is_refused_as_it_would_be_written(tmp_path):
    files = series(tmp_path / "in", PatientName="Quixote^Alonso")
    structures(tmp_path / "in", files[0], ["GTV Quixote"], PatientName="Quixote^Alonso")
    for pattern in ({"tumour": "GTV Quixote"}, {"tumour": "GTV|alonso"}, {"structures": "QUIXOTE"}):
        with pytest.raises(BadInput, match="repeats a name in the headers"):
            convert(tmp_path / "in", tmp_path / "out", keep_ids=True, **pattern)
    convert(tmp_path / "in", tmp_path / "out", keep_ids=True, tumour="GTV")
    assert list((tmp_path / "out").rglob("*_dseg.nii.gz"))


def test_a_modality_is_told_only_if_the_standard_knows_it(tmp_path):
    series(tmp_path / "in")
    for number, text in enumerate(["DOE^JOHN", "SR"]):
        ds = dataset("CT", "1.2.840.10008.5.1.4.1.1.88.11", f"1.2.{number}", SeriesInstanceUID="1.2")
        put(ds, "Modality", text)
        ds.save_as(tmp_path / "in" / f"SR{number}", enforce_file_format=True)
    told = "\n".join(convert(tmp_path / "in", tmp_path / "out", keep_ids=True))
    assert "of another modality (SR)" in told and "of another modality (not of the standard)" in told


# --- pixels


@pytest.mark.parametrize("text", ["YES", "yes", "Yes", " yes ", "Y", "TRUE"])
def test_slices_with_text_burnt_in_are_left_out_however_it_is_written(tmp_path, text):
    series(tmp_path / "in" / "a", change=lambda ds: put(ds, "BurnedInAnnotation", text))
    series(tmp_path / "in" / "b", "MR", SeriesDescription="T1", BurnedInAnnotation="NO")
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert "left out: 4 files with text burnt into the pixels" in told
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")] == ["sub-P1_T1w.nii.gz"]


def test_a_face_and_a_picture_of_a_screen_are_read_and_pointed_at(tmp_path):
    series(
        tmp_path / "in" / "a",
        "MR",
        SeriesDescription="T1",
        change=lambda ds: put(ds, "RecognizableVisualFeatures", "yes"),
    )
    series(tmp_path / "in" / "b", storage=CAPTURE)
    told = convert(tmp_path / "in", tmp_path / "out", keep_ids=True)
    assert any("--deface skull" in line for line in told) and any("secondary capture" in line for line in told)
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2


# --- what is found again


def test_what_is_written_passes_what_is_looked_for(tmp_path):
    series(
        tmp_path / "in", "MR", SeriesDescription="T1", change=lambda ds: plant(ds, "Doe^John", ["Doe", "DOE", "J. Doe"])
    )
    convert(tmp_path / "in", tmp_path / "out", key=tmp_path / "key.tsv")
    assert privacy.folder_findings(tmp_path / "out") == []
    assert nib.load(next((tmp_path / "out").rglob("*.nii.gz"))).header["descrip"].tobytes().strip(b"\0") == b""
