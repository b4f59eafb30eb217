"""Keys and values of the tokens seen so far, one row per response, column = position in the sequence.

Rows are right-padded: a row that holds n tokens uses columns 0..n-1, so rotary positions are those of training. What
lies beyond is masked, but must be finite (0 × NaN is NaN), hence buffers start, and are dropped, as zeros.

Shape suffixes: R rows, C columns, G key/value heads of this rank, D head size, N tokens.
"""

import torch
from torch import Tensor


class KVCache:
    """One buffer per layer of this pipeline stage, [R, C, G, 2·D], keys before values; and the mask over columns."""

    def __init__(
        self,
        *,
        num_layers: int,
        num_rows: int,
        num_columns: int,
        num_groups: int,
        head_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.num_rows = num_rows
        self.num_columns = num_columns
        self._head_size = head_size
        self._layers_RCGD2 = [
            torch.zeros(num_rows, num_columns, num_groups, 2 * head_size, dtype=dtype, device=device)
            for _ in range(num_layers)
        ]
        self._layers_flat = [layer.view(num_rows * num_columns, num_groups, -1) for layer in self._layers_RCGD2]
        # Added to attention scores: 0 where a column holds a token, -inf elsewhere.
        self.mask_RC = torch.full((num_rows, num_columns), float("-inf"), dtype=dtype, device=device)
        self._used = False

    def fits(self, num_rows: int, num_columns: int) -> bool:
        return num_rows <= self.num_rows and num_columns <= self.num_columns

    def clear(self) -> None:
        """Forgets all contents. The buffers stay."""
        if self._used:
            for layer in self._layers_RCGD2:
                layer.zero_()
            self._used = False

    def flat_index(self, rows_N: Tensor, columns_N: Tensor) -> Tensor:
        return rows_N * self.num_columns + columns_N

    def open_rows(self, rows: Tensor, lengths: Tensor) -> None:
        """Rows `rows` now hold sequences of `lengths` tokens, whatever they held before."""
        self._used = True
        columns = torch.arange(self.num_columns, device=rows.device)
        mask = torch.where(columns[None] < lengths[:, None], 0.0, float("-inf"))
        self.mask_RC[rows] = mask.to(self.mask_RC.dtype)

    def mark(self, flat_index_N: Tensor) -> None:
        """These columns hold a token from now on."""
        self.mask_RC.view(-1).index_fill_(0, flat_index_N, 0.0)

    def write(self, layer: int, flat_index_N: Tensor, key_NGD: Tensor, value_NGD: Tensor) -> None:
        self._layers_flat[layer].index_copy_(0, flat_index_N, torch.cat((key_NGD, value_NGD), dim=-1))

    def read(self, layer: int, num_rows: int, num_columns: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the leading rows and columns, each a view [R, G, C, D]."""
        used = self._layers_RCGD2[layer][:num_rows, :num_columns].transpose(1, 2)
        return used[..., : self._head_size], used[..., self._head_size :]

    def copy_rows(self, sources: Tensor, targets: Tensor, num_columns: int) -> None:
        """Copies the leading columns of rows `sources` over rows `targets`, and their masks."""
        for layer in self._layers_RCGD2:
            layer[targets, :num_columns] = layer[sources, :num_columns]
        self.mask_RC[targets] = self.mask_RC[sources]
