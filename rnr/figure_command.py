"""``rnr figure``: the paper's figures, from a fresh clone or of one's own photos."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from rnr.command_line import add_drawing, add_photo_sources, add_weights, at_least_one, photos_from
from rnr.data.photos import limited
from rnr.figure_cases import RULES
from rnr.figure_rows import named
from rnr.panels import SUFFIXES, Crop, save
from rnr.paper_figures import CONFIGS, FIGURES, RUNS, of_paper
from rnr.records import write_whole


def figure(argv: Sequence[str]) -> int:
    """Draws one. Exit status 1 if something in it could not be used, 2 if there is no figure."""
    parser = _parser()
    args = parser.parse_args(argv)
    if idle := _idle(args, parser):
        parser.error(f"{', '.join(idle)}: nothing in this figure goes by that")
    path = args.output if args.output.suffix.lower() in SUFFIXES else args.output / f"{args.name}.png"
    try:
        systems = named(args.rows, args.configs) if args.rows else None
        photos = photos_from(args) if args.photos else None
        plain = of_paper(args.name, photos, systems, args.configs, args.runs)
        draws = replace(
            plain.draws,
            photos=limited(plain.draws.photos, args.limit),
            preset=plain.draws.preset and args.preset,
            each=args.draws,
            seed=args.seed,
            crop=args.crop and Crop(*args.crop),
        )
        wanted = replace(
            plain,
            draws=draws,
            rule=RULES[args.pick] if args.pick else plain.rule,
            count=args.count or plain.count,
            width=args.width,
            reasoner=args.reasoner,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = wanted.draw()
        save(drawn.figure, path)
        write_whole(drawn.text, path.with_suffix(".md"))
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:  # PhotoError too
        parser.exit(2, f"error: {error}\n")
    for line in wanted.left_out:
        print(f"left out: {line}")
    print(wanted.caption, path, path.with_suffix(".md"), sep="\n")
    return 1 if drawn.failures else 0


def _idle(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """Options that were given and change nothing in the figure that was asked for."""
    kind = FIGURES[args.name]
    real = kind.preset is None
    idle = {"preset": real, "draws": real, "seed": real, "reasoner": not real, "runs": bool(args.rows) or not kind.ablation}
    idle |= dict.fromkeys(("split", "held_out"), not args.photos)
    names = [name for name, is_idle in idle.items() if is_idle and getattr(args, name) != parser.get_default(name)]
    return [f"--{name.replace('_', '-')}" for name in names]


def _parser() -> argparse.ArgumentParser:
    figures = "\n".join(f"  {name:<10} {kind.title}" for name, kind in FIGURES.items())
    rules = "\n".join(f"  {name:<10} {rule.says.format(last='the last row')}" for name, rule in RULES.items())
    parser = argparse.ArgumentParser(
        prog="rnr figure",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Draw a figure in the manner of the paper's: a photo a strip, a system a column, a part of each\n"
        "enlarged, and the diagnosis beside. A text with all figures and diagnoses is written beside it.\n\n"
        f"NAME is one of\n{figures}\n\nphotos are picked by one of these rules, never by hand\n{rules}",
    )
    parser.add_argument("name", choices=list(FIGURES), metavar="NAME", help="which figure")
    add_photo_sources(parser, nargs="*")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PLACE",
        help=f"folder, in which it is NAME.png, or a file with one of the suffixes {', '.join(SUFFIXES)}",
    )  # fmt: skip
    parser.add_argument(
        "--rows", nargs="+", metavar="ROW",
        help="columns: files in baselines/ without .yaml, or paths of files; ROW=LABEL names the column. The last is the one "
        "whose diagnosis is shown (default: all rows of Table 2 that can run here and rnr last, or those of Table 3)",
    )  # fmt: skip
    parser.add_argument(
        "--pick", choices=list(RULES), help="rule by which photos are shown (default: the figure's own)"
    )
    parser.add_argument("--count", type=at_least_one, metavar="N", help="strips (default: the figure's own, 2 to 4)")
    parser.add_argument(
        "--crop", type=int, nargs=4, metavar=("LEFT", "TOP", "WIDTH", "HEIGHT"),
        help="what is enlarged, in pixels (default: the part of the clean photo with the most detail)",
    )  # fmt: skip
    parser.add_argument(
        "--width", type=float, metavar="INCHES", help="of the figure, such as 7 for a page (default: roomy)"
    )
    add_drawing(parser)
    add_weights(parser, "reasoner")
    parser.add_argument("--configs", type=Path, default=CONFIGS, help=f"folder ({CONFIGS})")
    parser.add_argument("--runs", type=Path, default=RUNS, help=f"folder of rnr ablations, for its rows ({RUNS})")
    parser.set_defaults(split="test", draws=3)
    return parser
