"""The two operators that torchvision's wheel lacks beside a CPU build of torch, so that `import torchvision` works.

torchvision from the package index is compiled against a CUDA build; beside a CPU build its compiled part does not load
and `import torchvision` stops at operators that nobody defined. Defining their signatures is enough for its models.
Imported by the tests of dynnotes.adapt, and run at the start of every kernel that executes a notebook (run_parts.py).
"""
import importlib.util

import torch

if importlib.util.find_spec("torchvision") and torch.version.cuda is None:
    LIBRARY = torch.library.Library("torchvision", "DEF")           # lives as long as the process
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
