"""Caches cut into pages."""

import torch


def in_pages(caches, lengths, page_size):
    """Pools of pages in no order, NaN where no key of the lengths lies, and their table, whose
    entries there name no page."""
    batch, heads, capacity, d = caches[0].shape
    counts = [-(-length // page_size) for length in lengths]
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0)).add(1).tolist()
    pools = [cache.new_full((1 + sum(counts), heads, page_size, d), float("nan"))
             for cache in caches]
    table = torch.full((batch, capacity // page_size + 2), -7, dtype=torch.int32)
    for b, length in enumerate(lengths):
        for first in range(0, length, page_size):
            page = order.pop()
            table[b, first // page_size] = page
            rows = slice(first, min(first + page_size, length))
            for pool, cache in zip(pools, caches):
                pool[page, :, :rows.stop - first] = cache[b, :, rows]
    return pools, table.to(caches[0].device)
