"""Named priors of the degradation model: ``rnr/presets/NAME.yaml``, or a YAML file of one's own."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rnr.degradation import Degrader, Mixture

FOLDER = Path(__file__).parent.parent / "presets"


def names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Degrader:
    """The degradation model of a preset's ``name``, or of a file that ends in ``.yaml``; what a file leaves out keeps
    its default, which is the paper's.

    ``ValueError`` names the file, and what is wrong with it: there is no such preset, an unknown key, a bad range.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"{name!r} is neither a file nor a preset; presets are {', '.join(names())}")
    try:
        given = OmegaConf.merge(OmegaConf.structured(Degrader), OmegaConf.load(path))
        return OmegaConf.to_object(given)
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from error


def mixture(named: Degrader | str | Sequence[str]) -> Degrader | Mixture:
    """A degradation model as it is, by its name (see :func:`load`), or by several names: each photo draws one of them."""
    if isinstance(named, Degrader):
        return named
    return load(named) if isinstance(named, str) else Mixture([load(name) for name in named])
