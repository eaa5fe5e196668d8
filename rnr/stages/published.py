"""What the paper prints in its tables: other draws of the degradation, its own models, its own split."""

from rnr.stages.evaluation import Rows

COLUMNS = ("", "OTS PSNR (dB)", "OTS SSIM", "RESIDE PSNR (dB)", "RESIDE SSIM")

INPUT = ("Input", "13.4610", "0.3258", "13.0450", "0.3182")

TABLE_2 = (
    INPUT,
    ("3D", "13.0786", "0.3739", "13.9362", "0.4539"),
    ("FoundIR", "14.4094", "0.3579", "14.0800", "0.3586"),
    ("Img2Img-Turbo", "17.8744", "0.5715", "16.7320", "0.5479"),
    ("Stable Diffusion3", "18.8597", "0.5918", "15.4911", "0.5102"),
    ("Qwen-Image", "18.5255", "0.5788", "16.1400", "0.6100"),
    ("(Ours) R&R", "19.564", "0.6214", "17.0036", "0.6188"),
)

TABLE_3 = (
    INPUT,
    ("w/o Reasoner SFT", "14.2184", "0.4605", "13.1645", "0.4607"),
    ("w/o Score", "18.0576", "0.6003", "15.8875", "0.6000"),
    ("w/o Parameters", "18.4592", "0.6105", "16.4289", "0.5825"),
    ("w/o Semantics", "18.7185", "0.5952", "16.3532", "0.5900"),
    ("w/o RL", "18.9478", "0.6213", "16.7890", "0.6113"),
    ("Full Model", "19.564", "0.6214", "17.0036", "0.6188"),
)


def title(number: int) -> str:
    """Of the paper's table of that number."""
    return f"Table {number}, as the paper prints it; other draws of the degradation, its own models"


def rows(table: tuple[tuple[str, ...], ...]) -> Rows:
    """``table`` for :func:`rnr.stages.evaluation.show` and ``markdown``."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in table]
