from tests import cpu_torchvision  # noqa: F401  before anything imports torchvision
