"""Reading other people's tables: the columns that must be there, their codes, and ids written in two ways."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from survpack.cohort import DAYS
from survpack.errors import BadInput

MISSING = ("--", "N/A", "n/a", "NA", "na", "Not Available", "not available", "Unknown", "unknown", "")


def read_table(path: Path, *, required=(), sheet=0, header=0, missing=MISSING, **options) -> pd.DataFrame:
    """A CSV, TSV or Excel table as text, with `missing` as NaN and blanks around names and values cut off.

    Parameters
    ----------
    path : Path
    required : iterable of str
        Columns that must be there.
    sheet, header : int or str, int or list of int
        As pandas has them.
    missing : iterable of str
    **options
        To pandas' reader.

    Raises
    ------
    BadInput
        Where the file, its sheet or a column is absent, or the file is no table.
    """
    if not Path(path).exists():
        beside = sorted(other.name for other in Path(path).parent.glob("*") if other.is_file())[:8]
        raise BadInput(f"{path} not found (beside it: {', '.join(beside) or 'no file'}); put it there.")
    try:
        if Path(path).suffix.lower() in (".xlsx", ".xls"):
            table = pd.read_excel(path, sheet_name=sheet, header=header, dtype=str, keep_default_na=False, **options)
        else:
            options = {"sep": "\t" if Path(path).suffix == ".tsv" else ",", "encoding": "utf-8-sig"} | options
            table = pd.read_csv(path, header=header, dtype=str, keep_default_na=False, **options)
    except (ValueError, OSError, KeyError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path}: no table to read ({' '.join(str(error).split())[:150]}), expected commas (tabs in a .tsv), UTF-8, or "
            "Excel; save it so, or fetch it anew."
        ) from None
    if not isinstance(table.columns, pd.MultiIndex):
        table = without_blanks(table)
        table.columns = [str(name).strip() for name in table.columns]
        need(required, table, path)
    table = table.apply(lambda column: column.str.strip())
    return table.mask(table.isin(list(missing)))


def read_wide(path: Path, key: str, *, missing=MISSING, sheet=0) -> pd.DataFrame:
    """A table of many columns of numbers, CSV, TSV, Excel or parquet; ids as text, `missing` as NaN.

    Parameters
    ----------
    path : Path
    key : str
        The column of ids; it must be there.
    missing : iterable of str
    sheet : int or str

    Raises
    ------
    BadInput
        As `read_table`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        return read_table(path, required=[key], sheet=sheet, missing=missing)
    if not path.exists():
        return read_table(path)  # which tells what lies beside it
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
            table = table.reset_index() if key not in table and key in table.index.names else table
            if key in table and pd.api.types.is_float_dtype(table[key]):  # numbers beside a missing one
                table[key] = table[key].map("{:.15g}".format, na_action="ignore")
        else:
            how = {"sep": "\t" if path.suffix.lower() == ".tsv" else ",", "encoding": "utf-8-sig", "low_memory": False}
            table = pd.read_csv(
                path, dtype={key: str}, keep_default_na=False, na_values=sorted({*missing, "nan", "NaN"}), **how
            )
    except (ValueError, OSError) as error:
        raise BadInput(
            f"{path}: no table to read ({' '.join(str(error).split())[:150]}), expected CSV, Excel or parquet; save it so."
        ) from None
    table = without_blanks(table)
    table.columns = [str(name).strip() for name in table.columns]
    need([key], table, path)
    refuse_twice(path, table.columns)
    return table


def without_blanks(table: pd.DataFrame) -> pd.DataFrame:
    """Without the unnamed columns and the rows in which nothing stands, as spreadsheets write them after the rest."""

    def filled(column: pd.Series) -> pd.Series:
        there = column.notna()
        return there if pd.api.types.is_numeric_dtype(column) else there & (column.astype(str).str.strip() != "")

    unnamed = [not re.sub(r"^Unnamed: \d+$", "", str(name).strip()) for name in table]
    table = table.iloc[:, [k for k, blank in enumerate(unnamed) if not blank or filled(table.iloc[:, k]).any()]]
    kept = np.zeros(len(table), bool)
    for k in range(table.shape[1]):
        if kept.all():
            break
        kept |= filled(table.iloc[:, k]).to_numpy(bool)
    return table if kept.all() else table[kept].reset_index(drop=True)


def refuse_twice(path: Path, columns, sheet=0) -> None:
    """Raise BadInput where a file has one of these columns twice: pandas reads the second under another name."""
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        header = list(columns)
    elif path.suffix.lower() in (".xlsx", ".xls"):
        header = pd.read_excel(path, sheet_name=sheet, header=None, nrows=1, dtype=str).iloc[0].dropna()
    else:
        sep = "\t" if path.suffix.lower() == ".tsv" else ","
        header = pd.read_csv(path, sep=sep, header=None, nrows=1, dtype=str, encoding="utf-8-sig").iloc[0].dropna()
    counts = Counter(str(name).strip() for name in header)
    twice = [name for name in columns if counts[name] > 1]
    if twice:
        raise BadInput(f"{path}: column `{twice[0]}` is there twice, expected it once; drop one of the two.")


def need(columns, table: pd.DataFrame, path: Path) -> None:
    """Raise BadInput, naming the file and the columns found, unless `table` has all of `columns`."""
    absent = [column for column in columns if column not in table]
    if absent:
        raise BadInput(
            f"{path}: no column {', '.join(absent)}; add or rename it (columns found: {', '.join(map(str, table))})."
        )


def one_of(names, table: pd.DataFrame, path: Path, what: str) -> pd.Series:
    """The first column of `names` that is there: for tables whose versions name it differently.

    Raises
    ------
    BadInput
        Where none is, listing the columns found; a name is never guessed.
    """
    for name in names:
        if name in table:
            return table[name]
    raise BadInput(
        f"{path}: no column for {what} ({' or '.join(names)}); rename the right one (columns found: "
        f"{', '.join(map(str, table))})."
    )


def told_site(column: pd.Series) -> pd.Series:
    """Sites as they are written; NaN where it is not told, whatever the case of the word for that."""
    unknown = {word.casefold() for word in MISSING}
    return column.mask(column.str.strip().str.casefold().isin(unknown))


def bids_id(column: pd.Series) -> pd.Series:
    """Ids as a converted DICOM set spells them: `LUNG1-001` is `sub-LUNG1001`; missing stays missing."""
    return "sub-" + column.str.replace(r"[^0-9A-Za-z]", "", regex=True)


def numbers(column: pd.Series, sentinels=()) -> pd.Series:
    """As numbers, `sentinels` as missing; what is no number stays text, for the checks to name."""
    number = pd.to_numeric(column, errors="coerce").astype(float)
    readable = number.notna() | column.isna()
    number = number.mask(number.isin(sentinels))
    return number if readable.all() else number.astype(object).where(readable, column)


def in_days(column: pd.Series, unit: str) -> pd.Series:
    """Times given in `unit` (of `DAYS`) as days; what is no number stays text, for the checks to name."""
    number = numbers(column)
    return number * DAYS[unit] if number.dtype == float else number


def coded(column: pd.Series, codes: dict, path: Path, what: str | None = None) -> pd.Series:
    """Each code's meaning, whatever its case; missing stays missing.

    Raises
    ------
    BadInput
        For a code that is not in `codes`: an unknown status is never taken for "alive".
    """
    known = {str(code).casefold(): meaning for code, meaning in codes.items()}
    text = column.map(lambda value: value if pd.isna(value) else _plain(value).casefold())
    strange = sorted(set(text.dropna()) - set(known))
    if strange:
        raise BadInput(
            f"{path}: {what or column.name} is '{strange[0]}' for row {int((text == strange[0]).argmax()) + 1}, "
            f"expected one of {', '.join(map(str, codes))}; correct it there."
        )
    return text.map(known)


def _plain(value) -> str:
    """`1.0`, as Excel stores a whole number, is `1`."""
    text = str(value).strip()
    return text.removesuffix(".0")
