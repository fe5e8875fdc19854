"""Words that a DICOM header may hold without telling of anyone: the standard's terms, and the words of the trade.

`TERMS` are the defined terms of coded fields: DICOM PS3.3 (C.7.3.1.1.2, C.8.3.1, C.8.9.1) and PS3.16, annex L.
`WORDS` are those of makers, scanners, kernels, reconstructions and tracers, in lower case. A word that is missing here
costs a field of a sidecar; one that should not be here could be a name.
"""

TERMS = {
    "Modality": "CT MR PT",
    "PatientPosition": "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFP AFS PFP PFS AFDR AFDL PFDR PFDL",
    "ScanningSequence": "SE IR GR EP RM",
    "SequenceVariant": "SK MTC SS TRSS SP MP OSP TOF NONE",
    "MRAcquisitionType": "1D 2D 3D",
    "Units": "CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS MLMINML MLML GML "
    "STDDEV",
    "CorrectedImage": "DECY DECAY ATTN SCAT DTIM MOTN PMOT CLN RAN RADL DCAL NORM UNIF COR NCO NRGY LIN "
    "SLSENS RANSNG RANSM XYSM ZSM",  # the last five are the makers' own
    "DecayCorrection": "NONE START ADMIN",
    "BodyPartExamined": "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK "
    "CALCANEUS CALF CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CHOROIDPLEXUS CIRCLEOFWILLIS "
    "CLAVICLE COCCYX COLON CORNEA CORONARYARTERY CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE "
    "FEMUR FINGER FOOT FOREARM GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM KIDNEY KNEE "
    "LARYNX LEG LIVER LSPINE LSSPINE LUNG MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV "
    "NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RECTUM RIB SCALP SCAPULA SCLERA SCROTUM "
    "SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM STOMACH SUBMANDIBULAR TESTIS THIGH THUMB THYMUS THYROID TLSPINE TMJ TOE "
    "TONGUE TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA",
}
TERMS = {keyword: frozenset(terms.split()) for keyword, terms in TERMS.items()}
_MODALITIES = """
AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER KO LEN
LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT
RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
"""
MODALITIES = frozenset(_MODALITIES.split())

_MAKERS = """
siemens healthineers healthcare gmbh ag ge gems general electric philips nederland bv nv toshiba tec mec canon hitachi
aloka fujifilm fuji united imaging uih shanghai neusoft positron nms shimadzu carestream kodak agfa konica minolta hologic
varian elekta accuray tomotherapy viewray brainlab samsung neurologica mindray esaote bruker biospin mediso hermes xoran
planmeca cps cti adac picker marconi elscint imatron hewlett packard corporation corp company co inc ltd llc sa medical
system systems technologies technology electronics health care solutions international software mim mimvista syngo raysearch raystation pinnacle mirada velocity
"""
_SCANNERS = """
lightspeed vct qx ultra plus pro rt xtra discovery st ste dst dste rx mi gen ii iii iv revolution evo ace apex maxima
frontier optima brightspeed hispeed nxi fx prospeed signa hdx hdxt hdxtt hde hd lx excite artist architect pioneer premier
voyager explorer creator genesis jupiter advance pet ct mr mri biograph horizon mct truepoint quadra trinion hirez duo
sensation cardiac open emotion somatom definition as edge drive go up now top all scope perspective volume zoom balance
naeotom alpha magnetom avanto fit dot aera skyra verio trio tim triotim prisma prismafit vida lumina sola altea amira essenza
espree symphony symphonytim sonata harmony concerto impact expert terra sempra spectra allegra mmr ecat exact accel
reveal brilliance big bore ict ingenuity incisive iqon spectral access idt mx precedence gemini tf gxl vereos ingenia
ambition elition achieva dstream intera panorama multiva gyroscan nt eclipse aquilion lightning exceed lb asteion activion
alexion celesteion cartesion vantage titan galan orian powerlook centurian echelon airis scenaria supria eclos uct umr umi
upmr neuviz radixact truebeam halcyon mridian unity infinia hawkeye symbia intevo brightview skylight scanner slice force
flash vision flow one prime guardian allegro hr cima pnms investigational device advantage
elite gsi iq omni legend truflight select excelart aperto hfo xr cx sp gx ls star spirit free max xcite cite cardiovascular
"""
_MAKING = """
standard std stnd soft softer hard lung bone boneplus detail edge chst chest ultra sharp sharper smooth medium very body head
brain abdomen neck spine fine fc uhc kernel filter post none off on ya yb yc ua ub eb ec sb fbp asir asirv veo mbir
idose imr routine safire admire aidr aice dlir truefidelity iterative iterations iteration subsets it ss osem op os mlem ramla rebin fourier blob
tof psf lor fore ir drp vphd vphds vpfx vpfxs vue point sharpir qclear qcfx truex ultrahd dift back projection filtered
backprojection gaussian gauss xyz hanning hann butterworth pass allpass ramp shepp logan zoom fwhm mm cm sec min kev bq
ac nac ctac mrac measured calculated derived mu map segmented transmission attenuation correction corrected scatter model
based convolution subtraction sss single simul simulation sg monte carlo delayed event randoms relative absolute scaling with
without and wedge butterfly multiple strip bowtie flat large small copper aluminum aluminium tin air al cu sn
"""
_TRACERS = """
fdg fluorodeoxyglucose deoxyglucose glucose fluoro fluorine fluoride naf sodium gallium ga dotatate dotatoc dotanoc psma
choline flt thymidine fluorothymidine fmiso misonidazole fluoromisonidazole fet tyrosine ethyl fluoroethyl dopa fdopa
methionine acetate florbetapir florbetaben flutemetamol water ammonia rubidium rb zirconium zr fluciclovine fapi raclopride
carbon oxygen nitrogen iodine solution injection
"""
WORDS = frozenset((_MAKERS + _SCANNERS + _MAKING + _TRACERS).split())
MAKERS = frozenset(_MAKERS.split())

# What else stands in descriptions of a study, in folders and in file names as a matter of course.
_COMMON = """
anat anon anonymised anonymized anonymous archive arterial axial baseline cohort contrast coronal data dataset deid
deidentified delayed derived dicom dicomdir download downloads enhanced exam export exported flair follow folder home
image images imaging import input mask masks media mprage native nifti nii none gz oblique original output patient patients
phantom phase planning portal primary protocol public radiotherapy research routine sagittal scan scans secondary seg
segmentation series session share shared staging structures studies study subject subjects temp test therapy thoracic
thorax transverse treatment tumor tumour unknown user users venous volume weighted whole work
"""
COMMON = frozenset(_COMMON.split())
