"""Networks: an image encoder, a chart, and the ways in which they meet."""

from __future__ import annotations

import torch
from torch import nn

from survpack.encoders import CAM_LAYER, ENCODERS, Encoder
from survpack.errors import BadInput

__all__ = ["CAM_LAYER", "ENCODERS", "FUSIONS", "HybridNet"]

WIDTH = 32  # of the dense layers


class HybridNet(nn.Module):
    """Image and chart to `outputs` numbers a patient.

    Parameters
    ----------
    encoder : str
        A key of `ENCODERS`; not read where `fusion` is "chart".
    fusion : str
        One of `FUSIONS`.
    modalities, labels : int
        Channels of the image and of the mask; without modalities, the masks are the image.
    columns : int
        Width of the table (chart and lesion biomarkers).
    outputs : int
        Numbers a patient, as the objective asks.
    dropout : float
    masks : bool
        Whether the network sees the masks.

    Raises
    ------
    BadInput
        An encoder or a fusion that there is not; an image or a chart that is needed and absent.
    """

    def __init__(
        self,
        encoder: str,
        fusion: str,
        modalities: int,
        labels: int,
        columns: int,
        outputs: int,
        dropout: float,
        masks: bool = True,
    ):
        super().__init__()
        labels = labels if masks else 0
        _check(encoder, fusion, modalities, labels, columns)
        self.labels = labels
        self.shared = fusion == "gated" and modalities > 0  # one encoder, run on each modality apart
        channels = (1 if self.shared else modalities) + labels
        self.encoder = None if fusion == "chart" else ENCODERS[encoder](channels, labels)
        self.fusion = _FUSIONS[fusion](self.encoder, max(modalities, 1), columns, outputs, dropout)

    def forward(self, image: torch.Tensor, mask: torch.Tensor, table: torch.Tensor, present: torch.Tensor):
        """Patients to (n, outputs).

        Parameters
        ----------
        image : Tensor, shape (n, modalities, x, y, z)
        mask : Tensor, shape (n, labels, x, y, z)
        table : Tensor, shape (n, columns)
        present : Tensor of bool, shape (n, modalities)
            Modalities that a patient has; voxels of the others are not read.
        """
        return self.fuse(self.embed(image, mask, present), table)

    def embed(self, image: torch.Tensor, mask: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """All that the fusion needs of the image, patients first; the rest of the shape is the fusion's."""
        if self.encoder is None:
            return image.new_zeros(len(image), 0)
        mask = mask[:, : self.labels]
        if self.shared:
            return self.fusion.keep_each(self.encoder, image, mask, present)
        seen = image.masked_fill(~present[:, :, None, None, None], 0)
        return self.fusion.keep(self.encoder, self.encoder(torch.cat([seen, mask], dim=1), mask))

    def fuse(self, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """What `embed` gave, and the table, to (n, outputs)."""
        return self.fusion(self.encoder, embedding, table)

    def attention(self, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Weights that fusion "gated" gives each modality and, last, the chart, shape (n, modalities + 1)."""
        if not isinstance(self.fusion, Gated):
            raise BadInput(
                "attention: only networks of fusion `gated` have weights of modalities; choose such a model."
            )
        return self.fusion.weigh(embedding, table)[1]


class Chart(nn.Module):
    """Dense layers on the table; no image (DeepSurv, Katzman 2018)."""

    def __init__(self, encoder: None, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__()
        self.table_dense = _table_dense(columns, dropout)
        self.head = _head(WIDTH, outputs)

    def forward(self, encoder: None, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(self.table_dense(table))


class Image(nn.Module):
    """A dense layer on the image; no chart."""

    def __init__(self, encoder: Encoder, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__()
        self.image_dense = _image_dense(encoder.pooled, dropout)
        self.head = _head(WIDTH, outputs)

    def keep(self, encoder: Encoder, tokens: torch.Tensor) -> torch.Tensor:
        return self.image_dense(encoder.pool(tokens))

    def forward(self, encoder: Encoder, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(embedding)


class Concat(Image):
    """Image and chart, 32 numbers each, side by side (the brain-metastasis paper's)."""

    def __init__(self, encoder: Encoder, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__(encoder, modalities, columns, outputs, dropout)
        self.table_dense = _table_dense(columns, dropout)
        self.head = _head(2 * WIDTH, outputs)

    def forward(self, encoder: Encoder, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([embedding, self.table_dense(table)], dim=1))


class Additive(Image):
    """A network on the image plus a line on the chart (wide and deep, Cheng 2016); the line starts flat."""

    def __init__(self, encoder: Encoder, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__(encoder, modalities, columns, outputs, dropout)
        self.line = nn.Linear(columns, outputs, bias=False)
        nn.init.zeros_(self.line.weight)

    def forward(self, encoder: Encoder, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(embedding) + self.line(table)


class Film(nn.Module):
    """The chart scales and shifts the channels of the image's tokens (DAFT, Pölsterl 2021).

    Scale and shift come of the chart and the pooled image through a bottleneck. They start as one and zero,
    so that training begins at the network that sees the image alone.
    """

    def __init__(self, encoder: Encoder, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__()
        self.bottleneck = nn.Sequential(nn.Linear(encoder.pooled + columns, 16), nn.ReLU())
        self.affine = nn.Linear(16, 2 * encoder.width)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)
        self.image_dense = _image_dense(encoder.pooled, dropout)
        self.head = _head(WIDTH, outputs)

    def keep(self, encoder: Encoder, tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    def forward(self, encoder: Encoder, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        said = self.bottleneck(torch.cat([encoder.pool(embedding), table], dim=1))
        scale, shift = self.affine(said)[:, :, None].chunk(2, dim=1)
        return self.head(self.image_dense(encoder.pool((1 + scale) * embedding + shift)))


class Gated(nn.Module):
    """One encoder for all modalities; gated attention (Ilse 2018) over those a patient has, and the chart.

    The embedding is (n, modalities, 33): a vector a modality, and last whether it is there.
    """

    def __init__(self, encoder: Encoder, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__()
        # the encoder is shared and cannot tell modalities apart: each is read by a dense layer of its own
        self.image_dense = nn.ModuleList(_image_dense(encoder.pooled, dropout) for _ in range(modalities))
        self.table_dense = _table_dense(columns, dropout)
        self.content, self.gate, self.score = nn.Linear(WIDTH, 16), nn.Linear(WIDTH, 16), nn.Linear(16, 1)
        self.head = _head(WIDTH, outputs)

    def keep(self, encoder: Encoder, tokens: torch.Tensor) -> torch.Tensor:
        """Of a cohort of masks alone, whose one image everyone has."""
        vector = self.image_dense[0](encoder.pool(tokens))
        return torch.cat([vector, torch.ones_like(vector[:, :1])], dim=1)[:, None]

    def keep_each(
        self, encoder: Encoder, image: torch.Tensor, mask: torch.Tensor, present: torch.Tensor
    ) -> torch.Tensor:
        """Only images that are there go through the encoder."""
        vectors = image.new_zeros(*present.shape, WIDTH)
        if present.any():
            patient, modality = present.nonzero(as_tuple=True)
            masks = mask[patient]
            pooled = encoder.pool(encoder(torch.cat([image[patient, modality][:, None], masks], dim=1), masks))
            for at, dense in enumerate(self.image_dense):
                those = modality == at
                vectors[patient[those], at] = dense(pooled[those]).to(vectors.dtype)
        return torch.cat([vectors, present[:, :, None].to(vectors.dtype)], dim=2)

    def weigh(self, embedding: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The vectors (n, modalities + 1, 32), the chart's last, and their weights, which sum to one."""
        chart = self.table_dense(table)[:, None]
        vectors = torch.cat([embedding[:, :, :-1].to(chart.dtype), chart], dim=1)
        score = self.score(self.content(vectors).tanh() * self.gate(vectors).sigmoid()).squeeze(2)
        absent = torch.cat([embedding[:, :, -1] == 0, torch.zeros_like(score[:, :1], dtype=torch.bool)], dim=1)
        return vectors, score.masked_fill(absent, -torch.inf).softmax(dim=1)

    def forward(self, encoder: Encoder, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        vectors, weight = self.weigh(embedding, table)
        return self.head((weight[:, :, None] * vectors).sum(dim=1))


class Cross(nn.Module):
    """Each column of the chart, a token (Gorishniy 2021), asks the image's tokens.

    The token is the column's value times a vector, plus a vector. One more token, the same for everyone, asks too.
    """

    def __init__(self, encoder: Encoder, modalities: int, columns: int, outputs: int, dropout: float):
        super().__init__()
        self.slope = nn.Parameter(torch.randn(columns, WIDTH) / WIDTH**0.5)
        self.offset = nn.Parameter(torch.randn(columns + 1, WIDTH) / WIDTH**0.5)
        self.image_dense = nn.Sequential(
            nn.LayerNorm(encoder.width), nn.Dropout(dropout), nn.Linear(encoder.width, WIDTH)
        )
        self.attend = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.mixing = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(dropout))
        self.head = _head(WIDTH, outputs)

    def keep(self, encoder: Encoder, tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    def forward(self, encoder: Encoder, embedding: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        columns = table[:, :, None] * self.slope
        chart = torch.cat([columns, columns.new_zeros(len(table), 1, WIDTH)], dim=1) + self.offset
        image = self.image_dense(embedding.transpose(1, 2))
        tokens = chart + self.attend(chart, image, image, need_weights=False)[0]
        return self.head((tokens + self.mixing(tokens)).mean(dim=1))


_FUSIONS = {
    "chart": Chart,
    "image": Image,
    "concat": Concat,
    "film": Film,
    "gated": Gated,
    "cross": Cross,
    "additive": Additive,
}
FUSIONS = tuple(_FUSIONS)


def _check(encoder: str, fusion: str, modalities: int, labels: int, columns: int) -> None:
    if fusion not in FUSIONS:
        raise BadInput(f"network: there is no fusion `{fusion}`; choose one of {', '.join(FUSIONS)}.")
    if fusion == "chart":
        if not columns:
            raise BadInput("network: fusion `chart` needs a chart, and the table has no column; add columns to it.")
        return
    if encoder not in ENCODERS:
        raise BadInput(f"network: there is no encoder `{encoder}`; choose one of {', '.join(ENCODERS)}.")
    if modalities + labels == 0:
        raise BadInput(
            f"network: fusion `{fusion}` needs an image, and the cohort has no modality and no mask that the network"
            " sees; choose fusion `chart`, or let it see the masks."
        )


def _image_dense(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, WIDTH), nn.ReLU())


def _table_dense(columns: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(columns, WIDTH), nn.ReLU(), nn.Dropout(dropout))


def _head(width: int, outputs: int) -> nn.Linear:
    """First outputs near zero."""
    head = nn.Linear(width, outputs)
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head
