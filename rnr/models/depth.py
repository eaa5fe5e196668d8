"""Relative depth by a network: any depth-estimation checkpoint of transformers, as Depth-Anything, DPT or ZoeDepth."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES

from rnr.data.depth import to_levels
from rnr.data.photos import Photo, PhotoError
from rnr.models.weights import check, locate

SIDES = (32, 1024)  # of what a network's own preprocessing gets: most work at about 500, and some refuse less than 32
LONGEST = 3  # times the shorter side; a longer strip is squeezed, since preprocessing may round its short side to none

METRIC = ("zoedepth", "glpn", "tipsv2_dpt")
INVERSE = ("depth_pro",)  # its raw output; transformers inverts it afterwards


class DepthEstimator:
    """A :class:`rnr.data.depth.DepthPrior` by a network.

    checkpoint: a folder or hub name. inverse: True if the network tells inverse depth (larger is nearer), False if it
    tells depth, None to take that from the checkpoint's configuration (:func:`tells_inverse`). far_over_near: the
    farthest point of a photo over its nearest, which inverse depth of unknown offset does not say.

    Raises ``OSError`` if there is no such checkpoint, and ``ValueError`` if it is of another kind, lacks weights or does
    not say which depth it tells.
    """

    def __init__(
        self,
        checkpoint: str,
        inverse: bool | None = None,
        far_over_near: float = 5.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not far_over_near > 1:
            raise ValueError(f"far_over_near must be above 1, got {far_over_near}")
        self.far_over_near = far_over_near
        name = locate(checkpoint)
        check(name, tuple(MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES), "depth estimator")
        config = AutoConfig.from_pretrained(name)
        self.inverse = tells_inverse(config) if inverse is None else inverse
        if self.inverse is None:
            raise ValueError(
                f"{checkpoint}: its configuration ({config.model_type}) does not say whether it tells depth or inverse "
                "depth; say --metric or --inverse"
            )
        try:
            self.processor = AutoImageProcessor.from_pretrained(name, backend="pil")  # the other needs torchvision
        except ImportError as error:
            raise ValueError(f"{checkpoint}: its preprocessing cannot be had without torchvision ({error})") from error
        model, info = AutoModelForDepthEstimation.from_pretrained(name, output_loading_info=True)
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"{checkpoint}: lacks {len(missing)} weights, the first of them {missing[0]}")
        self.model = model.eval().to(device)

    @torch.inference_mode()
    def __call__(self, photo: Photo, pixels: Tensor) -> Tensor:
        """(1, H, W) uint8, its farthest point 255, for ``pixels`` (3, H, W) uint8."""
        shown = self._input(pixels).to(self.model.device, self.model.dtype)
        output = self.model(pixel_values=shown).predicted_depth.float().cpu()
        if not output.isfinite().all():
            raise PhotoError(f"{photo.path}: the network gave no finite depth")
        depth = from_inverse(output, self.far_over_near) if self.inverse else output.clamp(min=0)
        if depth.shape[-2:] != pixels.shape[-2:]:
            depth = F.interpolate(depth[None], pixels.shape[-2:], mode="bilinear", antialias=True)[0]
        farthest = depth.max()
        return to_levels(depth / farthest if farthest > 0 else torch.ones_like(depth), pixels.shape[-2:])

    def _input(self, pixels: Tensor) -> Tensor:
        """(1, 3, h, w) as the checkpoint's own preprocessing has it, but without the margin that some of them add.

        The margin (of DPT on DINOv2, to fill whole patches; of ZoeDepth, mirrored) would have to be cut off the output.
        """
        least, most = SIDES
        step = getattr(self.processor, "size_divisor", None) or 1
        scale = min(1.0, most / max(pixels.shape[-2:]))
        least = max(least, round(max(pixels.shape[-2:]) * scale / LONGEST))
        size = [max(least, round(side * scale)) for side in pixels.shape[-2:]]
        size = [-(-side // step) * step for side in size]
        if size != list(pixels.shape[-2:]):
            pixels = F.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0]
        return self.processor(
            pixels.numpy(), input_data_format="channels_first", return_tensors="pt", do_pad=False
        ).pixel_values


def tells_inverse(config: PreTrainedConfig) -> bool | None:
    """Whether a network of ``config`` tells inverse depth (True) or depth (False); None if it cannot be known.

    Depth-Anything says so itself. A DPT is MiDaS, inverse, unless its backbone is a DINOv2: those were published for
    NYU and KITTI, in metres.
    """
    kind = getattr(config, "depth_estimation_type", None)
    if kind is not None:
        return kind == "relative"
    if config.model_type == "dpt":
        return getattr(config.backbone_config, "model_type", None) != "dinov2"
    if config.model_type in (*METRIC, *INVERSE):
        return config.model_type in INVERSE
    return None


def from_inverse(inverse: Tensor, far_over_near: float) -> Tensor:
    """Depth in [1 / far_over_near, 1] from finite inverse depth of unknown scale and offset, of any shape.

    Inverse depth runs linearly from 1 at the farthest point to ``far_over_near`` at the nearest; depth is 1 over it.
    """
    far, near = inverse.min(), inverse.max()
    share = (inverse - far) / (near - far).clamp(min=torch.finfo(inverse.dtype).tiny)
    return 1 / (1 + (far_over_near - 1) * share)
