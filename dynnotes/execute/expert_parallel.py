"""Experts over many processes: each rank holds some of them, and rows travel to their experts and back.

    mesh = init_device_mesh("cpu", (4,), mesh_dim_names=("experts",))         # "cuda" where NCCL carries the rows
    experts = ParallelExperts.of(FeedForwardExperts(64, 512, 2048), mesh)     # 16 of the 64 stay on this rank
    y, trace = run_experts(gate, experts, x, name="experts", sparse=True)     # x: the tokens of this rank alone

Ranks are data-parallel in everything but the experts. An expert's gradient is the sum over the tokens of all ranks, as
they all came to it; what is replicated (a router, say) has seen this rank's tokens only, and its gradients have to be
added up:

    (loss_of_these_tokens.sum() / tokens_of_all_ranks).backward()
    for p in router.parameters():
        dist.all_reduce(p.grad)

DistributedDataParallel takes the mean over ranks of each rank's own mean loss, where experts hold P times as much:

    for p in experts.parameters():
        p.register_hook(lambda g: g / mesh.size())
    names = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)
    model = DistributedDataParallel(model)

and so does `fully_shard(model, ignored_params=set(experts.parameters()))`.

Tested with gloo on CPU. For NCCL the same calls are made on the device's tensors; that has not been run yet, and there
a lost rank is found by NCCL's own watchdog, which ends the process, unless TORCH_NCCL_BLOCKING_WAIT=1.
"""
from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from .experts import FeedForwardExperts
from .kernels.experts import expert_ffn

DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16


class ExchangeFailed(RuntimeError):
    """A collective did not end well: a rank was killed, fell too far behind, or failed before."""


class BrokenCheckpoint(ValueError):
    """A checkpoint that is not whole; the message names the file."""


class ParallelExperts(FeedForwardExperts):
    """The experts of a FeedForwardExperts, an equal share on each rank of a mesh, in order: rank r of P has experts
    r E / P to (r + 1) E / P - 1.

    Parameters are DTensors of all E experts that hold this rank's alone, so that optimizers, norms and
    torch.distributed.checkpoint know what they are. Every rank calls as often as the others, forward and backward, be
    it with no tokens at all; tokens may differ in number.

    In `run_experts` `full` is what all experts of all ranks cost, `spent` what this rank's tokens asked for, on
    whichever rank it ran. `measured()` counts what ran here: rows of all ranks that came to this rank's experts. Summed
    over ranks the two are equal, to the last MAC.
    """
    def __init__(self, experts: FeedForwardExperts, mesh: DeviceMesh):
        nn.Module.__init__(self)
        if mesh.ndim != 1:
            raise ValueError(f"experts: the mesh has axes {mesh.mesh_dim_names or list(mesh.shape)}; choose the one "
                             f"that experts are spread over: mesh['experts']")
        ranks, group = mesh.size(), mesh.get_group()
        weights, said = dict(experts.named_parameters()), [None] * ranks
        with _watched("all_gather_object", "the sizes", group):
            dist.all_gather_object(said, f"{experts.extra_repr()}, {'no ' * (experts.b1 is None)}biases, "
                                         f"{experts.w1.dtype}", group=group)
        _alike(said, "hold", group)
        if len(experts) % ranks:
            raise ValueError(f"experts: {len(experts)} experts cannot be shared out evenly over {ranks} ranks; take a "
                             f"multiple of {ranks}")
        self.activation, self.mesh = experts.activation, mesh
        own = len(experts) // ranks
        first = mesh.get_local_rank() * own
        for name in ("w1", "w2", "b1", "b2"):
            t = weights.get(name)
            self.register_parameter(name, None if t is None else nn.Parameter(DTensor.from_local(
                t.detach()[first:first + own].clone(), mesh, [Shard(0)], run_check=False), t.requires_grad))

    @classmethod
    def of(cls, experts: FeedForwardExperts, mesh: DeviceMesh) -> ParallelExperts:
        """This rank's share of `experts`; every rank of the one-dimensional `mesh` calls it, with equal sizes.

        Each rank takes its share from its own copy, and nothing is sent but sizes. `experts` may stand on the meta
        device: then `to_empty` and `load` fill what stays here.
        Raises ValueError, on all ranks, where E is no multiple of P or the sizes differ between ranks.
        """
        return cls(experts, mesh)

    def forward(self, x: Tensor) -> Tensor:
        """Answers of all experts, every row on every rank: [T, D] -> [T, E, D2]. To compare with, not to run."""
        if x.is_meta:                                                # only a price: no other rank is asked
            y = self._run(x.repeat(len(self), 1), x.new_empty(len(x) * len(self), dtype=torch.int64))
        else:
            y = self._ask(x, x.new_ones(len(self), len(x), dtype=torch.bool))[0]
        return y.unflatten(0, (len(self), len(x))).transpose(0, 1)

    def chosen(self, x: Tensor, on: Tensor, weight: Tensor | None) -> Tensor:
        """As FeedForwardExperts: the sum over each row's chosen experts of weight times answer, [T, D2].

        Raises ValueError, on all ranks, where rows differ between ranks in width, dtype or whether they learn;
        ExchangeFailed where a rank is lost or late.
        """
        y, expert, token = self._ask(x, on.t())
        if weight is not None:
            y = y * weight[token, expert, None].to(y.dtype)
        wide = torch.promote_types(y.dtype, torch.float32)           # as in the kernel: bfloat16 is summed in float32
        return y.new_zeros(len(x), y.shape[1], dtype=wide).index_add(0, token, y.to(wide)).to(y.dtype)

    def _ask(self, x: Tensor, on: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(answers [R, D2], expert [R], token [R]) for on [E, T], by expert, which is by rank."""
        group = self.mesh.get_group()
        expert, token = on.nonzero(as_tuple=True)
        sent, counts = self._announce(x, on.sum(1), group)
        got = counts.sum(1).tolist()
        rows = _Exchange.apply(x.index_select(0, token), sent, got, group, "rows")
        local = torch.arange(counts.shape[1], device=x.device).repeat(len(counts))
        answers = self._run(rows, local.repeat_interleave(counts.flatten()))
        return _Exchange.apply(answers, got, sent, group, "answers"), expert, token

    def _announce(self, x: Tensor, wanted: Tensor, group) -> tuple[list[int], Tensor]:
        """Rows to each rank [P], and rows that come from each rank for each expert here [P, E / P].

        With the counts goes what all ranks must agree on: who finds out later waits for a timeout.
        """
        learns = any(p.requires_grad for p in self.parameters()) + 2 * x.requires_grad if torch.is_grad_enabled() else 0
        facts = torch.tensor([x.shape[1], DTYPES.index(x.dtype) if x.dtype in DTYPES else -1, learns], device=x.device)
        ranks = self.mesh.size()
        wanted = wanted.view(ranks, -1)
        told = _all_to_all(torch.cat([wanted, facts.expand(ranks, -1)], 1), [1] * ranks, [1] * ranks, group, "counts")
        counts, facts = told[:, :-3], told[:, -3:].tolist()
        _alike([f"rows of {width} {str(DTYPES[dtype]) if dtype >= 0 else 'of another dtype'}"
                f"{', gradients for experts' * (learns % 2)}{', gradients for rows' * (learns > 1)}"
                for width, dtype, learns in facts], "bring", group)
        return wanted.sum(1).tolist(), counts

    def _run(self, rows: Tensor, index: Tensor) -> Tensor:
        """Answers of this rank's experts, `index` [R] of them, to `rows` [R, D]."""
        w1, w2, b1, b2 = (None if p is None else p.to_local() for p in (self.w1, self.w2, self.b1, self.b2))
        return expert_ffn(rows, index[:, None], None, w1, w2, b1=b1, b2=b2, activation=self.activation)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, over {self.mesh.size()} ranks"


# Exchange ------------------------------------------------------------------------------------------------------------

class _Exchange(torch.autograd.Function):
    """Blocks of rows to their ranks, `sent[r]` rows to rank r and `got[r]` from there; gradients take the way back."""
    @staticmethod
    def forward(ctx, rows, sent, got, group, what):
        ctx.way = sent, got, group, what
        return _all_to_all(rows, sent, got, group, what)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        sent, got, group, what = ctx.way
        return _all_to_all(g, got, sent, group, f"gradients of {what}"), None, None, None, None


def _all_to_all(rows: Tensor, sent: list[int], got: list[int], group, what: str) -> Tensor:
    found = rows.new_empty(sum(got), *rows.shape[1:])
    with _watched("all_to_all_single", what, group):
        dist.all_to_all_single(found, rows.contiguous(), got, sent, group=group)
    return found


@contextmanager
def _watched(collective: str, what: str, group):
    """Raises ExchangeFailed in place of what the backend says when another rank is gone."""
    start = time.monotonic()
    try:
        yield
    except RuntimeError as fault:
        waited, limit = time.monotonic() - start, _timeout(group)
        who = f"rank {dist.get_rank()} (group of {dist.get_world_size(group)})"
        late = limit is not None and waited >= 0.9 * limit
        why = ("a rank is slow, hangs, or makes fewer calls. If it is only slow, give it longer: "
               "init_process_group(timeout=timedelta(seconds=...)); if not, see" if late else
               "a rank was killed or failed. See") + (
               " which rank's log ends first, and start again from the last checkpoint")
        raise ExchangeFailed(f"experts: {collective} of {what} failed on {who} after {waited:.1f} s, with a timeout of "
                             f"{'unknown length' if limit is None else f'{limit:g} s'}: {why}") from fault


def _timeout(group) -> float | None:
    """Seconds that the backend waits. Torch shows them nowhere in public."""
    try:
        limit = group._get_backend(group._device_types[0]).options._timeout
    except (AttributeError, IndexError, RuntimeError):
        return None
    return limit.total_seconds() if isinstance(limit, timedelta) else None


def _alike(said: list[str], verb: str, group) -> None:
    if len(set(said)) > 1:
        first = next(i for i, s in enumerate(said) if s != said[0])
        ranks = dist.get_process_group_ranks(group)
        raise ValueError(f"experts: ranks {verb} different things: rank {ranks[0]} {said[0]}; rank {ranks[first]} "
                         f"{said[first]}")


# Checkpoints ---------------------------------------------------------------------------------------------------------

def save(state: dict, folder: str | Path) -> None:
    """Write `state` (of `state_dict()`, nested at will) with torch.distributed.checkpoint; every rank calls it.

    Raises FileExistsError where there is a checkpoint already: one that is overwritten and interrupted is lost.
    """
    if (Path(folder) / ".metadata").exists():
        raise FileExistsError(f"{folder} holds a checkpoint; save each into a folder of its own")
    dcp.save(state, checkpoint_id=folder)


def load(state: dict, folder: str | Path) -> None:
    """Fill the tensors of `state` in place, from however many ranks there were to however many there are.

    What ParallelExperts saved a FeedForwardExperts can load, with torch.distributed or without, and the reverse.
    Raises BrokenCheckpoint, naming the file, where one is missing or cut short; a changed bit is not seen. A checkpoint
    contains pickles: load those that you trust.
    """
    _whole(Path(folder))
    dcp.load(state, checkpoint_id=folder)


def _whole(folder: Path) -> None:
    index = folder / ".metadata"
    if not index.is_file():
        raise BrokenCheckpoint(f"{index} is not there: this is no checkpoint, or its saving was interrupted, as that "
                               f"file is written last; load the one before")
    try:
        places = dcp.FileSystemReader(folder).read_metadata().storage_data.values()
    except Exception as fault:                                       # a damaged pickle raises anything
        raise BrokenCheckpoint(f"{index} cannot be read ({type(fault).__name__}); load the one before") from fault
    ends: dict[str, int] = {}
    for place in places:
        ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    for name, end in sorted(ends.items()):
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found is None or found < end:
            raise BrokenCheckpoint(f"{file} " + ("is missing" if found is None else f"has {found} of {end} bytes")
                                   + "; copy it again, or load the checkpoint before")
