"""DICOM in: a download becomes a BIDS folder that names nobody.

`series` finds, `lattice` places, `values` reads, `suv` scales PET; `masks` chooses from RTSTRUCT and SEG, `outlines` draws;
`sidecar` keeps what `survpack.privacy` allows of a header, if it is one of `terms` and repeats nothing `personal`; `tree`
writes.
"""

from survpack.dicom.tree import convert

__all__ = ["convert"]
