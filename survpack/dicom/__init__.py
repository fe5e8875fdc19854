"""DICOM in: a download becomes a BIDS folder that names nobody.

`series` finds and reads, `suv` scales PET, `masks` draws RTSTRUCT and SEG, `sidecar` keeps what `survpack.privacy`
allows of a header, `tree` writes.
"""

from survpack.dicom.tree import convert

__all__ = ["convert"]
