import pytest
import torch
from hypothesis import settings
from skimage import data

# A busy machine is no reason to fail.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def photo():
    """(3, 64, 64) in [0, 1], at 8-bit levels: a face, with edges, texture and smooth parts."""
    return torch.from_numpy(data.astronaut()[70:198:2, 150:278:2].copy()).permute(2, 0, 1) / 255


@pytest.fixture(scope="session")
def depth():
    """(1, 64, 64) in [0, 1]: far at the top, near at the bottom, a little uneven."""
    rows, columns = torch.meshgrid(torch.linspace(1, 0, 64), torch.linspace(0, 6, 64), indexing="ij")
    return (0.9 * rows + 0.05 * columns.sin() + 0.05)[None].clamp(0, 1)


@pytest.fixture
def generators():
    """One generator a seed."""
    return lambda seeds: [torch.Generator().manual_seed(seed) for seed in seeds]
