"""The pieces of decoding on shards, without a group: tensors in, tensors out."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed")

import multistep  # noqa: E402
import multistep.distributed as md  # noqa: E402
from multistep.distributed import Items, Layout, LevelPaths, exchange  # noqa: E402
from multistep.torch import stages  # noqa: E402
from shards import (LENGTH, SCHEDULES, bound, cuts_of, differences, make,  # noqa: E402
                    pieces_of)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "dense"])
@pytest.mark.parametrize("coarse", [False, True])
def test_pieces(name, coarse):
    schedule = SCHEDULES[name]
    q, k, v, routing, search_keys = make(schedule, coarse=coarse, seed=3)
    length, start = torch.tensor([LENGTH, 77]), torch.tensor([3, 0])
    want = multistep.attend(q, k, v, routing, schedule, length=length, start=start,
                            search_keys=search_keys)
    for world in (1, 2, 4, 8):
        for cuts in cuts_of(world, LENGTH):
            got = pieces_of(schedule, q, k, v, routing, cuts, search_keys=search_keys,
                            length=length, start=start)
            assert not differences(got, want, bound(want, k, v, q, LENGTH, world)), cuts


def test_paths_merge_in_any_order_of_shards():
    schedule = SCHEDULES["nstep2"]
    q, k, v, routing, _ = make(schedule, coarse=True)
    found = [md.search_level(routing[0], k[:, :, a:b], schedule, 1, key_offset=a, length=LENGTH)
             for a, b in ((0, 30), (30, 31), (31, 120))]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        merged = md.merge_paths(LevelPaths(*map(torch.stack, zip(*(found[i] for i in order)))))
        assert torch.equal(merged.anchors[..., 0], multistep.attend(
            q, k, v, routing, schedule, length=LENGTH).anchors[..., 0])


@pytest.mark.parametrize("call, error", [
    (lambda q, k, s: md.search_level(q, k, s, 3, key_offset=0, length=9), r"^level 3: .* \[1, 2\]"),
    (lambda q, k, s: md.search_level(q, k, s, 2, key_offset=0, length=9), "^parents of level 2: "),
    (lambda q, k, s: md.search_level(q, k, s, 1, key_offset=-1, length=9), "^key_offset -1: "),
    (lambda q, k, s: md.search_level(q, k[:, :, :, :3], s, 1, key_offset=0, length=9),
     r"^k of shape \(2, 2, 120, 3\): batch 2 and head_dim 8 like q"),
    (lambda q, k, s: md.attend_items(q, k, k[:, :, 1:], s, key_offset=0, length=9),
     r"^v of shape \(2, 2, 119, 8\): \(2, 2, 120, 8\) here"),
    (lambda q, k, s: md.attend_items(q, k, k, s, key_offset=0, length=9, kernels="fast"),
     "^kernels 'fast': of CUDA tensors"),
    (lambda q, k, s: md.search_level(q, k, s, 1, key_offset=0, length=9, kernels="slow"),
     "^kernels 'slow': "),
    (lambda q, k, s: md.attend_items(q, k, k, s, q, key_offset=0, length=9), "^spans of shape "),
    (lambda q, k, s: md.merge_paths(LevelPaths(q, q, q, q)), r"^scores of shape \(2, 4, 2, 8\): "),
    (lambda q, k, s: md.merge_items(Items(q, k)), "^lses of shape "),
    (lambda q, k, s: md.search_level(q, k, s, 1, key_offset=0, length=[1, 2, 3]), "^length of shape"),
], ids=range(11))
def test_pieces_refuse(call, error):
    q, k, *_ = make(SCHEDULES["nstep3"])
    with pytest.raises(ValueError, match=error):
        call(q, k, SCHEDULES["nstep3"])


def test_append_of_sequences_of_different_lengths():
    cache, new = torch.zeros(3, 1, 4, 1), torch.arange(1.0, 10).view(3, 1, 3, 1)
    md.append(cache, new, key_offset=10, length=torch.tensor([12, 15, 30]))
    assert cache.view(3, 4).tolist() == [[2, 3, 0, 0], [0, 0, 4, 5], [0, 0, 0, 0]]
    md.append(cache, new, key_offset=10, length=[13, 10, 14])
    assert cache.view(3, 4).tolist() == [[1, 2, 3, 0], [0, 0, 4, 5], [0, 7, 8, 9]]
    with pytest.raises(ValueError, match=r"^new of shape \(3, 1, 3, 2\): \(3, 1, 'n', 1\) here$"):
        md.append(cache, torch.zeros(3, 1, 3, 2), key_offset=0, length=3)


def test_layouts():
    layout = Layout.head_tail(10, 2)
    assert [one.tolist() for one in layout.positions] == [[0, 1, 2, 8, 9], [3, 4, 5, 6, 7]]
    assert [(run.rows, run.first) for run in layout.runs(0)] == [(slice(0, 3), 0), (slice(3, 5), 8)]
    whole = torch.arange(10.0).view(1, 1, 10, 1)
    assert torch.equal(layout.whole([layout.shard(whole, rank) for rank in range(2)]), whole)
    with pytest.raises(ValueError, match=r"^positions of 3 rows: each in \[0, 2\] once, of which 1 "):
        Layout([[0, 2], [2]])
    with pytest.raises(ValueError, match=r"^rows\[1\] -1: "):
        Layout.contiguous([3, -1])
    assert Layout.contiguous([0, 3]).rows == [0, 3]


def test_what_lies_side_by_side_is_sent_as_it_lies():
    shapes = (((3, 2), torch.int32), ((3,), torch.float32), ((0, 2), torch.int64), ((5, 1), torch.half))
    one = stages.side_by_side(*shapes, device=torch.device("cpu"))
    for tensor in one:
        tensor.copy_(torch.randn(tensor.shape) * 99)
        assert tensor.data_ptr() % 16 == 0 and tensor.is_contiguous()
    memory = exchange.pack(one)
    assert memory.data_ptr() == one[0].data_ptr() and memory.nbytes == 32 + 16 + 16
    apart = [tensor.clone() for tensor in one]
    turned = [torch.stack([tensor, tensor], -1)[..., 0] for tensor in one]
    for other in (apart, turned, one[:2], [one[1], one[0], *one[2:]], [one[0], *apart[1:]],
                  [one[0].view(2, 3).T, *one[1:]]):
        packed = exchange.pack(other)
        assert packed.data_ptr() != memory.data_ptr()
        found = exchange.unpack(torch.stack([packed, exchange.pack(other)]), other)
        assert all(torch.equal(got, torch.stack([want, want])) and got.dtype == want.dtype
                   for got, want in zip(found, other))
    assert torch.equal(exchange.pack(apart)[:24], memory[:24])


@pytest.mark.parametrize("layout", [
    Layout.head_tail(200, 3), Layout.contiguous([0, 160, 40]),
    Layout([torch.arange(199, -1, -1), []]), Layout([[], []])], ids=["3", "0, 160, 40", "200", "0"])
def test_layouts_move_rows_of_any_kind(layout):
    """Of few runs and of many, of values that are whole ones of 16 bytes or not."""
    torch.manual_seed(0)
    dense = torch.randn(2, 3, layout.length, 16).half()
    padded = torch.randn(2, 3, layout.length, 24).half()
    kinds = [dense, dense.double(), dense[..., :5], dense.transpose(0, 1), padded[..., 4:20],
             padded[..., 8:], dense.int(), dense.double().requires_grad_(),
             torch.randn(2, layout.length, 3, 16).half().transpose(1, 2), dense[..., 0, None, None],
             torch.randn(2, 3, layout.length)]
    for one in kinds:
        want = [one.index_select(2, at) for at in layout.positions]
        shards = [layout.shard(one, rank) for rank in range(len(layout.rows))]
        assert all(map(torch.equal, shards, want))
        whole = layout.whole(shards)
        assert torch.equal(whole, one) and whole.requires_grad == one.requires_grad
    flat = dense[0]
    assert torch.equal(layout.whole([layout.shard(flat, rank, 1)
                                     for rank in range(len(layout.rows))], 1), flat)
