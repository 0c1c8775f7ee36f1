"""What each rank does in test_expert_parallel.py: `agree` under torch.distributed.run, `fall` started one by one.

`agree FOLDER`: everything that a whole group can show, beside a single process that has all tokens and all experts;
rank 0 leaves what it saw in FOLDER/agree-P.json. `fall FOLDER`: rank 2 is late, then killed; the others say what they
met and when, in FOLDER/RANK-late.json and FOLDER/RANK-killed.json.
"""
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from dynnotes.decide.routers import SwitchTop1, TopKSoftmax
from dynnotes.execute import measured, run_experts
from dynnotes.execute.expert_parallel import ExchangeFailed, ParallelExperts, load, save
from dynnotes.execute.experts import FeedForwardExperts

E, D, H = 8, 6, 10
LATE, SLEEP, PATIENT = 3, 6, 30                                      # seconds: timeout, a late rank's sleep, timeout


class Layer(nn.Module):
    """A linear layer, a router, experts and a linear layer; tokens of a rank are one group with room of its own."""
    def __init__(self, k: int = 2, capacity: int | None = None, experts: int = E, **options):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.k, self.capacity = nn.Linear(D, D), k, capacity
        self.router = TopKSoftmax(D, experts) if capacity is None else SwitchTop1(D, experts, jitter=0)
        self.experts = FeedForwardExperts(experts, D, H, **options)
        self.last = nn.Linear(self.experts.w2.shape[1], 3)

    def forward(self, x, sparse=True):
        """[T, D] of one rank -> answers [T, 3] and the trace."""
        h = self.first(x)
        scores = self.router(h)
        routing = self.router.choose(scores, self.k if self.capacity is None else self.capacity)
        y, trace = run_experts(routing.gate.detach()[:, None], self.experts, h[:, None], name="experts", sparse=sparse,
                               weight=routing.weight[:, None])
        return self.last(y[:, 0]), trace

    def over(self, mesh):
        self.experts = ParallelExperts.of(self.experts, mesh)
        return self


def tokens_of(counts: list[int], skew: float = 0.0) -> list[torch.Tensor]:
    """The tokens of every rank, the same in every process; skew: how much they resemble each other."""
    random = torch.Generator().manual_seed(2)
    alike = torch.randn(D, generator=random).double()
    return [skew * alike + (1 - skew) * torch.randn(n, D, generator=random).double() for n in counts]


def share(t: torch.Tensor, rank: int, ranks: int) -> torch.Tensor:
    return t.chunk(ranks)[rank]


def off(found, expected) -> float:
    """The largest difference; of nothing, 0."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).detach().abs().max()) if found.numel() else 0.0


def together(value: float) -> float:
    """The largest over ranks."""
    t = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(t, dist.ReduceOp.MAX)
    return float(t)


def local(p):
    return p.to_local() if isinstance(p, DTensor) else p


def reduced(model) -> None:
    """Gradients of what is replicated, added up over the ranks."""
    for p in model.parameters():
        if not isinstance(p, DTensor):
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad)


# With the layer alone ------------------------------------------------------------------------------------------------

def chosen(mesh, counts, k, how="some", dtype=torch.float64, weighted=True, **options) -> dict:
    """Largest differences of value and gradients from one process with all tokens, over the largest values (or 1)."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(3)
    whole = FeedForwardExperts(E, D, H, **options).to(dtype)
    random, total = torch.Generator().manual_seed(4), sum(counts)
    x = torch.randn(D, total, generator=random).to(dtype).t()                          # not contiguous
    on = torch.zeros(total, E, dtype=torch.bool)
    if how == "one expert":
        on[:, 5] = True
    elif how == "uneven":                                                              # from no expert to all
        on = torch.rand(total, E, generator=random) < torch.rand(total, 1, generator=random)
        on[:, 2] = False                                                               # chosen by nobody
    elif total:
        on.scatter_(1, torch.rand(total, E, generator=random).topk(k).indices, True)
    weight = torch.rand(total, E, generator=random).to(dtype) if weighted else None
    g = torch.randn(total, whole.w2.shape[1], generator=random).to(dtype)
    mine = slice(sum(counts[:rank]), sum(counts[:rank + 1]))
    experts = ParallelExperts.of(whole, mesh)

    def both(layer, part):
        xs = x[part].detach().requires_grad_()
        ws = None if weight is None else weight[part].clone().requires_grad_()
        y = layer.chosen(xs, on[part], ws)
        y.backward(g[part])
        return y.detach(), xs.grad, None if ws is None else ws.grad

    expected, found = both(whole, slice(None)), both(experts, mine)
    pairs = [(f, e[mine], e) for f, e in zip(found, expected, strict=True) if f is not None]
    pairs += [(p.grad.to_local(), share(q.grad, rank, ranks), q.grad)
              for p, q in zip(experts.parameters(), whole.parameters(), strict=True)]
    scale = [max([1.0, *e.abs().flatten().tolist()]) for *_, e in pairs]
    differences = [together(off(f, e) / s) for (f, e, _), s in zip(pairs, scale, strict=True)]
    return {"value": differences[0], "gradients": max(differences[1:])}


def cases(mesh) -> dict:
    ranks = dist.get_world_size()
    several, few = [5 + 3 * r for r in range(ranks)], [7] * ranks
    return {
        "k = 1": chosen(mesh, several, 1),
        "k = 2": chosen(mesh, several, 2, activation="gelu"),
        "swiglu, no biases, other width": chosen(mesh, several, 2, activation="swiglu", bias=False, outputs=4),
        "without weights": chosen(mesh, several, 2, weighted=False),
        "k = E": chosen(mesh, few, E, activation="silu"),
        "all to one expert": chosen(mesh, several, 1, "one expert"),
        "an expert that nobody wants, tokens that want none": chosen(mesh, several, 0, "uneven"),
        "first rank without tokens": chosen(mesh, [0, *few[1:]], 2),
        "all ranks but one without tokens": chosen(mesh, [9] + [0] * (ranks - 1), 2),
        "no tokens at all": chosen(mesh, [0] * ranks, 2),
        "float32": chosen(mesh, several, 2, dtype=torch.float32),
        "bfloat16": chosen(mesh, several, 2, dtype=torch.bfloat16),
    }


# In a network --------------------------------------------------------------------------------------------------------

def network(mesh, counts, skew=0.0, **options) -> dict:
    """Value, trace, gradients of everything, and what was counted, beside one process that has all tokens."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    whole, model, xs = Layer(**options).double(), Layer(**options).double().over(mesh), tokens_of(counts, skew)
    alone = [whole(x) for x in xs]                                                     # room for each rank's own tokens
    (sum(y.square().sum() for y, _ in alone) / sum(counts)).backward()
    with measured() as bill:
        y, trace = model(xs[rank])
    (y.square().sum() / sum(counts)).backward()
    reduced(model)
    expected, here = alone[rank][1].decisions[0], trace.decisions[0]
    dense = model(xs[rank], sparse=False)[0]
    routed = sum(t.decisions[0].gate.sum((0, 1)) for _, t in alone)                    # rows for each expert
    others = sum(p.numel() for p in (model.first.weight, model.last.weight, model.router.score.weight))
    told = [None] * ranks
    dist.all_gather_object(told, [bill.macs - len(xs[rank]) * others, float(trace.spent.sum()),
                                  here.macs[0] * int(share(routed, rank, ranks).sum())])
    executed, claimed, arrived = zip(*told, strict=True)
    return {
        "value": together(off(y, alone[rank][0])), "dense form": together(off(dense, y)),
        "gradients": together(max(off(local(p.grad), share(q.grad, rank, ranks) if isinstance(p, DTensor) else q.grad)
                                  for p, q in zip(model.parameters(), whole.parameters(), strict=True))),
        "trace": together(max(off(trace.spent, alone[rank][1].spent), off(trace.full, alone[rank][1].full),
                              off(here.gate, expected.gate), float(here.macs != expected.macs))),
        "executed": executed, "claimed": claimed, "rows that arrived, in MACs": arrived,
        "held": sum(p.to_local().untyped_storage().nbytes() for p in model.experts.parameters())
        / sum(p.nbytes for p in whole.experts.parameters()),
        "routed": int(routed.sum()), "busiest": int(routed.max()), "idle experts": int((routed == 0).sum())}


def trained(mesh) -> dict:
    """Three steps of AdamW with norms clipped, and with DistributedDataParallel and FSDP one gradient each."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    counts = [6] * ranks
    xs, found = tokens_of(counts), {}
    whole, model = Layer().double(), Layer().double().over(mesh)
    alone, ours = (torch.optim.AdamW(m.parameters(), lr=0.01) for m in (whole, model))
    for _ in range(3):
        alone.zero_grad()
        (sum(whole(x)[0].square().sum() for x in xs) / sum(counts)).backward()
        nn.utils.clip_grad_norm_(whole.parameters(), 0.01)
        alone.step()
        ours.zero_grad()
        (model(xs[rank])[0].square().sum() / sum(counts)).backward()
        reduced(model)
        sharded = [p for p in model.parameters() if isinstance(p, DTensor)]
        others = [p for p in model.parameters() if not isinstance(p, DTensor)]
        norms = [get_total_norm([p.grad for p in sharded]).full_tensor(), get_total_norm([p.grad for p in others])]
        norm = get_total_norm(norms)
        for group in (sharded, others):
            clip_grads_with_norm_(group, 0.01, norm)
        ours.step()
    found["three steps"] = together(max(off(p.full_tensor() if isinstance(p, DTensor) else p, q)
                                        for p, q in zip(model.parameters(), whole.parameters(), strict=True)))

    reference = Layer().double()
    (sum(reference(x)[0].square().sum() for x in xs) / sum(counts)).backward()
    for name in ("DistributedDataParallel", "fully_shard"):
        model = Layer().double().over(mesh)
        for p in model.experts.parameters():
            p.register_hook(lambda g: g / ranks)
        if name == "fully_shard":
            wrapped = fully_shard(model, mesh=mesh, ignored_params=set(model.experts.parameters()))
        else:
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                model, [n for n, p in model.named_parameters() if isinstance(p, DTensor)])
            wrapped = DistributedDataParallel(model)
        (wrapped(xs[rank])[0].square().sum() / counts[rank]).backward()
        found[name] = together(max(
            off(p.grad.full_tensor() if isinstance(p, DTensor) else p.grad, q.grad)
            for p, q in zip(model.parameters(), reference.parameters(), strict=True)))
    return found


# What all ranks find out at once -------------------------------------------------------------------------------------

def errors(mesh) -> dict:
    """The message of every mistake, which has to be the same everywhere, and the group works on afterwards."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    experts = ParallelExperts.of(FeedForwardExperts(E, D, H).double(), mesh)
    odd = rank == ranks - 1
    tries = {
        "not divisible": lambda: ParallelExperts.of(FeedForwardExperts(ranks + 1, D, H), mesh),
        "another size": lambda: ParallelExperts.of(FeedForwardExperts(E, D, H + odd), mesh),
        "another dtype": lambda: ParallelExperts.of(FeedForwardExperts(E, D, H).to(torch.bfloat16 if odd else
                                                                                   torch.float32), mesh),
        "a mesh of two axes": lambda: ParallelExperts.of(
            FeedForwardExperts(E, D, H), init_device_mesh("cpu", (ranks // 2, 2), mesh_dim_names=("data", "experts"))),
        "rows of another width": lambda: experts.chosen(torch.zeros(2, D + odd).double(),
                                                        torch.ones(2, E, dtype=torch.bool), None),
        "rows that learn on some ranks": lambda: experts.chosen(torch.zeros(2, D).double().requires_grad_(odd),
                                                                torch.ones(2, E, dtype=torch.bool), None),
    }
    found = {}
    for name, call in tries.items():
        try:
            call()
            said = "nothing"
        except ValueError as fault:
            said = str(fault)
        everywhere = [None] * ranks
        dist.all_gather_object(everywhere, said)
        found[name] = everywhere
    return found


# Checkpoints ---------------------------------------------------------------------------------------------------------

def state_of(model, optimizer) -> dict:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


def learnt(model, xs, total: int):
    """A model and its AdamW after one step on these tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    (sum(model(x)[0].square().sum() for x in xs) / total).backward()
    return optimizer


def bits(state) -> dict:
    """Every tensor of a state, whole, by its path."""
    if isinstance(state, dict):
        return {f"{name}/{inner}": t for name, part in state.items() for inner, t in bits(part).items()}
    return {"": state.full_tensor() if isinstance(state, DTensor) else state} if isinstance(state, torch.Tensor) else {}


def checkpoints(mesh, folder: Path) -> dict:
    """Save from these ranks; load what other numbers of ranks left in FOLDER, on experts that were never made whole."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    counts = [6] * ranks
    model = Layer().double().over(mesh)
    optimizer = learnt(model, [tokens_of(counts)[rank]], sum(counts))
    reduced(model)
    optimizer.step()
    state = state_of(model, optimizer)
    save(state, folder / f"from-{ranks}")
    whole = bits(state)
    if rank == 0:
        torch.save(whole, folder / f"from-{ranks}.pt")
    dist.barrier()
    try:
        save(state, folder / f"from-{ranks}")
        found = {"saved twice": "nothing"}
    except FileExistsError as fault:
        found = {"saved twice": str(fault)}
    for before in sorted(folder.glob("from-*.pt")):
        with torch.device("meta"):
            new = Layer().double()
        new.over(mesh).to_empty(device="cpu")
        for p in new.parameters():
            nn.init.constant_(local(p), torch.nan)
        optimizer = torch.optim.AdamW(new.parameters(), lr=0.01)
        state = state_of(new, optimizer)
        load(state, before.with_suffix(""))
        set_state_dict(new, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        expected, read = torch.load(before), bits(state_of(new, optimizer))
        assert expected.keys() == read.keys()
        found[before.stem] = together(sum(not torch.equal(read[n], t) for n, t in expected.items()))
    return found


# Ranks that fall -----------------------------------------------------------------------------------------------------

def fall(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    for how, limit in (("late", LATE), ("killed", PATIENT)):
        dist.init_process_group("gloo", init_method=f"file://{folder}/{how}.store", rank=rank,
                                world_size=int(os.environ["WORLD_SIZE"]), timeout=timedelta(seconds=limit))
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        model = Layer(experts=6).over(mesh)
        start = time.monotonic()
        try:
            for step in range(5):
                start = time.monotonic()
                y = model(torch.randn(5, D))[0]
                if rank == 2 and step == 2:                          # the others wait in their backward pass
                    if how == "killed":
                        os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(SLEEP)
                y.sum().backward()
            raise AssertionError("nothing happened")
        except ExchangeFailed as fault:
            said = {"seconds": time.monotonic() - start, "step": step, "message": str(fault),
                    "cause": str(fault.__cause__)}
            (folder / f"{rank}-{how}.json").write_text(json.dumps(said))
            if how == "killed":
                raise
        dist.destroy_process_group()
        (folder / f"{rank}.done").touch()
        while len(list(folder.glob("*.done"))) < int(os.environ["WORLD_SIZE"]):      # the late one, too
            time.sleep(0.05)


def agree(folder: Path) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=2 * PATIENT))
    ranks = dist.get_world_size()
    mesh = init_device_mesh("cpu", (ranks,), mesh_dim_names=("experts",))
    counts = [6 + 2 * r for r in range(ranks)]
    found = {
        "cases": cases(mesh),
        "networks": {"two of eight": network(mesh, counts), "skewed": network(mesh, counts, 0.95),
                     "swiglu without biases": network(mesh, counts, activation="swiglu", bias=False),
                     "dropped": network(mesh, counts, 0.8, capacity=2),
                     "no room": network(mesh, counts, capacity=0),
                     "last rank without tokens": network(mesh, [*counts[:-1], 0])},
        "trained": trained(mesh), "errors": errors(mesh), "checkpoints": checkpoints(mesh, folder)}
    if dist.get_rank() == 0:
        (folder / f"agree-{ranks}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    FeedForwardExperts(1, D, H).chosen(torch.zeros(1, D), torch.ones(1, 1, dtype=torch.bool), None)   # compiles, once
    {"agree": agree, "fall": fall}[sys.argv[1]](Path(sys.argv[2]))
