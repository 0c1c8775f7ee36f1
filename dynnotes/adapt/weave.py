"""A model as it comes, taken apart where something shall be decided: its graph, cut at named submodules.

`Woven` puts Dynamic modules in the place of submodules and adds up what they decide; `chain` makes parts that hand a
state on, for samples that leave between them. The model is traced symbolically (torch.fx), and only as deep as the
names ask for: what lies beside the named modules is one opaque call and may hold any Python.
"""
from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import pairwise

from torch import Tensor, fx, nn

from ..execute import Dynamic, Trace, run


class AdaptError(ValueError):
    """A model that cannot be adapted as asked; the message names the module and the remedy."""


class Part(nn.Module):
    """A stretch of the model's graph: called with the values that it needs, returns those that are needed after it."""

    def __init__(self, graph: fx.GraphModule, needs: tuple[str, ...], gives: tuple[str, ...]):
        super().__init__()
        self.graph, self.needs, self.gives = graph, needs, gives

    def forward(self, *values):
        return self.graph(*values)                                   # a tuple, in the order of `gives`


class Woven(Dynamic):
    """`model` with some of its submodules, by name, in the hands of Dynamic ones; all else runs for every sample.

    A replacement is called with the one argument of the submodule whose place it takes and returns (value, Trace).
    Weights and submodules are shared with the model, which is not changed. Inputs: the model's own, as far as they have
    no default. What the model's own code, outside the named modules, does otherwise while training (a functional
    dropout, a second answer) is left out: it is taken as in eval mode.
    Raises AdaptError for a name that the model lacks, never calls, calls more than once or with more than one value, or
    that cannot be reached.
    """

    def __init__(self, model: nn.Module, replacements: Mapping[str, Dynamic]):
        super().__init__()
        parts = cut(model, replacements)
        self.parts = nn.ModuleList(replacements[name] if name else part for name, part in parts)
        self._flow = [(part.needs, part.gives) for _, part in parts]

    def forward(self, *inputs: Tensor) -> tuple:
        held, trace = {str(i): x for i, x in enumerate(inputs)}, None
        for part, (needs, gives) in zip(self.parts, self._flow, strict=True):
            value, bill = run(part, *(held[name] for name in needs))
            held.update(zip(gives, value if isinstance(part, Part) else (value,), strict=True))
            trace = bill if trace is None else trace + bill
        return held["output"], trace if trace is not None else Trace.static(inputs[0], 0)


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode for a while; every submodule gets its own mode back."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training


def cut(model: nn.Module, names: Collection[str], *, after: bool = False) -> list[tuple[str, Part]]:
    """The model's graph in order as (name, Part): a named module alone, or "" and a stretch between named modules.

    after: a stretch ends with its named module, instead of the module standing alone; its name is then the stretch's.
    Inputs of the model are named "0", "1", ...; its output is "output". Raises AdaptError as said at `Woven`.
    """
    known = dict(model.named_modules())
    for name in names:
        if name not in known or not name:
            near = get_close_matches(str(name), known, 1)
            raise AdaptError(f"{type(model).__name__} has no module {name!r}"
                             + (f"; did you mean {near[0]!r}?" if near else ""))
    graph = _traced(model, names)
    calls = [n.target for n in graph.nodes if n.op == "call_module" and n.target in names]
    for name in names:
        if calls.count(name) != 1:
            raise AdaptError(f"{name!r} of {type(model).__name__} is called {calls.count(name)} times, not once")
    groups: list[tuple[str, list[fx.Node]]] = [("", [])]
    for node in graph.nodes:
        if node.op in ("placeholder", "get_attr", "output"):
            continue
        own = node.target if node.op == "call_module" and node.target in names else ""
        if own and not after:
            groups += [(own, [node]), ("", [])]
        else:
            groups[-1][1].append(node)
            if own:
                groups[-1] = (own, groups[-1][1])
                groups.append(("", []))
    for name, nodes in groups:
        if name and not after:
            _check_alone(nodes[0], known[name])
    return _parts(model, graph, [(name, nodes) for name, nodes in groups if nodes])


def chain(model: nn.Module, names: Collection[str]) -> list[tuple[str, Part]]:
    """The model as (name, Part) that hand all that later parts need from one to the next; each ends with the named
    module, the last, where anything follows these, is named "".

    Raises AdaptError as `cut`, and where something other than one value passes from one part to the next.
    """
    parts = cut(model, names, after=True)
    for (_, part), (_, following) in pairwise(parts):
        if len(following.needs) != 1 or following.needs != part.gives:
            raise AdaptError(f"{type(model).__name__}: more than one value passes from one stage to the next "
                             f"({', '.join(part.gives)}); cut it where the model is sequential")
    return parts


def _traced(model: nn.Module, names: Collection[str]) -> fx.Graph:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, module, name):
            return name in names or not any(inner.startswith(name + ".") for inner in names)

    parameters = inspect.signature(model.forward).parameters
    fixed = {p.name: p.default for p in parameters.values() if p.default is not inspect.Parameter.empty}
    try:
        with in_eval_mode(model):
            graph = Tracer().trace(model, concrete_args=fixed)
    except Exception as fault:                                       # from the model's own Python may come anything
        raise AdaptError(f"{type(model).__name__}: its way to {', '.join(map(repr, names))} cannot be traced "
                         f"({fault}); name an outer module, or write the stages yourself") from fault

    def erase(node):
        for user in list(node.users):
            erase(user)
        graph.erase_node(node)

    for node in [n for n in graph.nodes if n.op == "placeholder" and n.target not in parameters
                 and n.target.rpartition("_")[0] in fixed]:
        erase(node)                                                  # with the checks that it has its default
    return graph


def _check_alone(node: fx.Node, module: nn.Module) -> None:
    """Raises AdaptError unless the call of `module` passes it one value: all that a replacement would get."""
    signature = inspect.signature(module.forward)
    first, *more = signature.bind(*node.args, **node.kwargs).arguments.items()
    more = [name for name, value in more if value is not signature.parameters[name].default]
    if more or not isinstance(first[1], fx.Node):
        raise AdaptError(f"{node.target!r} is called with more than one value ({', '.join([first[0], *more])}); name a "
                         "module around it or inside it that takes one")


def _parts(model, graph: fx.Graph, groups) -> list[tuple[str, Part]]:
    inputs = {n: str(i) for i, n in enumerate(n for n in graph.nodes if n.op == "placeholder")}
    output = next(n for n in graph.nodes if n.op == "output").args[0]
    if not isinstance(output, fx.Node):
        raise AdaptError(f"{type(model).__name__} returns {type(output).__name__}, not one tensor: adapt the module "
                         "inside it that does")
    group_of = {node: i for i, (_, nodes) in enumerate(groups) for node in nodes}
    name_of = {n: n.name for n in group_of} | inputs | {output: "output"}
    found = []
    for i, (name, nodes) in enumerate(groups):
        outside = dict.fromkeys(n for node in nodes for n in node.all_input_nodes
                                if n.op != "get_attr" and group_of.get(n) != i)
        after = [n for n in nodes if n is output or any(group_of.get(user, i) != i for user in n.users)]
        small = fx.Graph()
        copies = {n: small.placeholder(n.name) for n in outside}

        def copy(node, small=small, copies=copies):
            if node not in copies:
                copies[node] = small.node_copy(node, copy)
            return copies[node]

        for node in nodes:
            copy(node)
        small.output(tuple(copies[n] for n in after))
        found.append((name, Part(fx.GraphModule(model, small), tuple(name_of[n] for n in outside),
                                 tuple(name_of[n] for n in after))))
    return found
