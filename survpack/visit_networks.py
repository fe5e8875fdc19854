"""Networks over a patient's visits."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


class VisitNet(nn.Module):
    """Visits, as many as there are, and a table beside them, to one log hazard ratio.

    A gated recurrent unit (Cho 2014) reads the visits in turn, or a dense layer reads the only one, a summary. What
    it keeps, and the table itself, go linearly into the output.

    Parameters
    ----------
    columns : int
        Of a visit.
    table_columns : int
    width : int
    dropout : float
    recurrent : bool
    """

    def __init__(self, columns: int, table_columns: int, width: int, dropout: float, *, recurrent: bool):
        super().__init__()
        self.gru = nn.GRU(columns, width, batch_first=True) if recurrent else None
        self.dense = None if recurrent else nn.Sequential(nn.Linear(columns, width), nn.ReLU())
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width + table_columns, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, visits: torch.Tensor, lengths: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Visits (n, longest, columns) of which the first `lengths` (n,) are real, and table (n, columns), to (n,)."""
        return self.head(torch.cat([self.drop(self.keep(visits, lengths)), table], dim=1)).squeeze(1)

    def keep(self, visits: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What is kept of the visits, (n, width)."""
        if self.gru is None:
            return self.dense(visits[:, 0])
        packed = pack_padded_sequence(visits, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return self.gru(packed)[1][-1]
