"""Keys in pages: pools [pages, num_kv_heads, page_size, head_dim], and a table of those of each
sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _problem
from .._problem import Arguments, Sizes, each
from . import positions


def check_shapes(given: Arguments, table: Tensor) -> Sizes:
    """Checks pools and table; the sizes of a problem with as many keys as the table can tell."""
    pool = given.k.shape
    if len(pool) != 4:
        raise ValueError(f"k_cache of shape {tuple(pool)}: [pages, num_kv_heads, page_size, "
                         "head_dim]")
    for name, one in (("v_cache", given.v), ("search_keys", given.search_keys)):
        if one is not None and one.shape != pool:
            raise ValueError(f"{name} of shape {tuple(one.shape)}: {tuple(pool)} here")
    size = pool[2]
    if size < 16 or size & (size - 1):
        raise ValueError(f"page_size {size}: a power of two, 16 at least")
    positions.require_integers("block_table", table)
    if table.device != given.q.device:
        raise ValueError(f"block_table on {table.device}: {given.q.device} like the others")
    if table.dim() != 2 or table.shape[:1] != given.q.shape[:1]:
        raise ValueError(f"block_table of shape {tuple(table.shape)}: [batch, max_pages]")
    dense = torch.empty(table.shape[0], pool[1], table.shape[1] * size, pool[3], device="meta")
    return _problem.check_shapes(given._replace(k=dense, v=dense, search_keys=None))


def gathered(given: Arguments, table: Tensor) -> Arguments:
    """The arguments with the keys of every sequence in one piece."""
    def gather(name: str, array: Tensor) -> Tensor:
        if name not in ("k", "v", "search_keys"):
            return array
        # Entries that no key counts in may be anything.
        return array[table.long().clamp(0, array.shape[0] - 1)].transpose(1, 2).flatten(2, 3)

    return each(gather, given)
