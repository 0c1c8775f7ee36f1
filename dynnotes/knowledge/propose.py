"""Facets of a paper nobody has read yet, guessed from its words; every guess comes with the words it rests on.

A guess is for a person to confirm: `benchmarks/knowledge.py` prints how often guesses from titles are right.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

# Words of dynamic networks: a line of tags, and below it what tells them (regular expressions, four spaces apart).
FIELD = r"""
taxon:sample/depth/exits unit:exit adapts:input
    early[- ]exit\w*    multi[- ]exit    exit (branch|classifier)\w*    overthink\w*
taxon:sample/depth/skips unit:layer adapts:input
    (layer|block)s?[- ](skipping|dropping)    skip(ping|s)? (layers|blocks)    stochastic depth    dynamic depth
    depth[- ]adaptive
taxon:sample/depth/halting unit:step decision:halting-score adapts:input
    adaptive computation time    halting    ponder\w*    recurrent depth
taxon:sample/width/experts unit:expert decision:gating adapts:input
    mixtures?[- ]of[- ](\w+[- ])?experts    moe\b    expert (choice|routing)
    sparse(ly)?[- ](gated|activated) (models?|networks?|experts?)
taxon:sample/depth/skips unit:token adapts:input
    mixtures?[- ]of[- ]depths
taxon:sample/width/channels unit:channel
    (dynamic|runtime|gated|gating|conditional\w*|adaptive)[^.]{0,20} channels?
    channel (gating|selection|skipping|execution)    runtime (neural )?pruning    dynamic(ally)? (channel )?prun\w+
    slimmable
adapts:input
    contextual sparsity    conditional (feedforward )?computation    adaptive (inference|computation|sensing)
    dynamic(ally)? (inference|neural networks?|networks?)    (input|instance|sample)[- ](adaptive|dependent|aware|wise)
    anytime (prediction|inference)    adaptive neural networks?
taxon:sample/parameters/mixing unit:weights adapts:weights
    dynamic (convolutions?|kernels?)    conditionally parameteri[sz]ed    conditional convolutions?
    attention over (convolution )?kernels
taxon:sample/parameters/generated unit:weights adapts:weights
    dynamic filters?    hyper[- ]?networks?    weight (generation|prediction) networks?    predicted weights
taxon:sample/parameters/kernels unit:weights adapts:weights
    deformable (conv\w*|kernels?)    adaptive receptive fields?
taxon:sample/parameters/features unit:weights adapts:weights
    channel attention    squeeze[- ]and[- ]excitation    dynamic (relu|activations?)
taxon:sample/routing unit:branch adapts:input
    dynamic routing    routing networks?    instance[- ]aware (neural )?architecture    path selection
taxon:sample/precision unit:precision adapts:input
    (dynamic|adaptive|instance[- ]aware)[^.]{0,20} (precision|quanti[sz]ation|bit[- ]?widths?)
taxon:spatial/pixels unit:pixel adapts:input
    spatial(ly)?[- ](adaptive|dynamic|sparse|wise)    sparse convolutions?
    pixel[- ](wise|adaptive)[^.]{0,12} (gating|attention\w*|conv\w*|dynamic)
taxon:spatial/regions unit:region adapts:place
    glimpses?    hard attention    patch selection    where to (look|focus|zoom)    zoom[- ]in
    recurrent (models? of )?(visual )?attention
taxon:spatial/resolution unit:resolution adapts:input
    (dynamic|adaptive|switchable)[- ]resolutions?    resolution[- ](adaptive|switchable)    scaling polic\w+
taxon:spatial/tokens unit:token adapts:input
    token (pruning|sparsification|selection|dropping|halting|reduction|merging|reorgani[sz]ation)s?
    (adaptive|dynamic) tokens?    (adaptive|dynamic) (vision )?transformers?
taxon:temporal/video unit:frame adapts:input modality:video
    frame (selection|sampling|skipping)    salient (clips?|frames?)    (adaptive|dynamic) frames?
taxon:temporal/text unit:step adapts:input
    skim\w*    speed reading    skip[- ]?(rnn|lstm)    jump[- ]?lstm    skip(ping)? state updates    clockwork
"""
# What any paper may say; it counts where words of the field stand, too.
BESIDE = r"""
training:reinforcement
    reinforcement    policy gradients?    q-learning
training:gumbel-softmax
    gumbel
training:straight-through
    straight[- ]through
training:distillation
    distill\w*
training:soft
    differentiable
decision:policy
    policy networks?    agents?
decision:confidence
    confiden\w+    entropy    uncertainty    calibrat\w+    patience
decision:gating
    gat(e|es|ed|ing)\b
decision:saliency
    saliency    salient    top-k
decision:user
    slimmable    switchable    anytime
kind:survey
    surveys?    overview    review
kind:system
    runtime system    compilers?    librar(y|ies)
executes:accelerator
    fpgas?    asics?    accelerators?
executes:gpu
    gpus?    cuda
executes:cpu
    cpus?    mobile devices?    smartphones?    microcontrollers?    on-device
modality:image
    images?    vision    visual    imagenet    vits?
modality:video
    videos?    action recognition
modality:text
    text    languages?    nlp    bert    llms?    translation    reading
modality:audio
    speech    audio
modality:3d
    3d    point clouds?    lidar    voxels?
modality:sensor
    wearables?    sensors?    accelerometers?
tasks:classification
    classification    image recognition
tasks:detection
    detect(ion|or|ors)
tasks:segmentation
    segmentation    scene parsing
tasks:restoration
    super-resolution    denois\w+    deblur\w*    restoration
tasks:video-recognition
    action recognition    video (recognition|classification)
tasks:translation
    translation
tasks:language-modelling
    language model\w*    llms?
tasks:language-understanding
    language understanding    bert
tasks:multi-task
    multi-task
tasks:activity-recognition
    activity recognition
tasks:pose
    pose estimation
"""
_STEMS = (  # each cue of FIELD holds one of them: a quick look, which spares most entries the slow one
    "exit", "overthink", "skip", "depth", "dropping", "halting", "ponder", "time", "expert", "moe", "gated",
    "activated", "channel", "prun", "slimmable", "sparsity", "computation", "dynamic", "adaptive", "aware",
    "dependent", "wise", "anytime", "parameteri", "condition", "kernel", "filter", "hyper", "weight", "deform",
    "receptive", "squeeze", "rout", "path", "precision", "quanti", "bit", "spatial", "sparse", "pixel", "glimpse",
    "attention", "patch", "where", "zoom", "resolution", "scaling", "token", "transformer", "frame", "clip", "skim",
    "speed", "jump", "clockwork",
)  # fmt: skip


class Proposal(NamedTuple):
    """A facet's word (or a `taxon`), and the words it rests on: `"token pruning" in the title`."""

    facet: str
    word: str
    why: str


@functools.cache
def cues(table: str) -> list[tuple[re.Pattern, list[tuple[str, str]]]]:
    """[(words to look for, [(facet, word) they tell])] of a table above."""
    found: list[tuple[list[str], list[str]]] = []
    for line in table.strip().splitlines():
        if line.startswith(" "):
            found[-1][1].extend(re.split(r" {4,}", line.strip()))
        else:
            found.append((line.split(), []))
    return [(re.compile(rf"\b(?:{'|'.join(words)})"), [tuple(tag.split(":")) for tag in tags]) for tags, words in found]


@functools.cache
def _any_cue() -> re.Pattern:
    """All cues of FIELD in one: a second look, before each is asked for itself."""
    words = (pattern.pattern.removeprefix(r"\b") for pattern, _ in cues(FIELD))
    return re.compile(rf"\b(?:{'|'.join(words)})")  # one \b for all is three times as fast as one for each


def proposals(texts: dict[str, str]) -> list[Proposal]:
    """What the words of a paper suggest, each word of a facet once; [] where nothing speaks of dynamic networks.

    texts: {name of the field: its text in plain characters}, looked through in this order.
    """
    lowered = {name: text.lower() for name, text in texts.items()}
    everything = "\n".join(lowered.values())
    for stem in _STEMS:
        if stem in everything:
            break
    else:
        return []
    if not _any_cue().search(everything):
        return []
    found = _matches(FIELD, lowered)
    if not found:
        return []
    found |= {tag: why for tag, why in _matches(BESIDE, lowered).items() if tag not in found}
    return [Proposal(facet, word, why) for (facet, word), why in found.items()]


def _matches(table: str, texts: dict[str, str]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for pattern, tags in cues(table):
        for name, text in texts.items():
            if hit := pattern.search(text):
                for facet, word in tags:
                    found.setdefault((facet, word), f'"{hit[0]}" in the {name}')
                break
    return found
