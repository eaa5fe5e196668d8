"""A small tokenizer of Qwen's own kind, trained on the text that a compact reasoner writes.

Byte-level BPE behind Qwen2's pre-tokenizer: words may become whole tokens, every digit stays a token of its own, and
no text is out of vocabulary. Special tokens and chat format are those of Qwen-VL, so that whatever drives the public
checkpoints drives a compact model too.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2Tokenizer

from rnr.diagnosis import Diagnosis, render
from rnr.diagnosis.prompt import EXAMPLE, SHORT

END_OF_TEXT, START_OF_TURN, END_OF_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN, VISION_START, VISION_END, IMAGE, VIDEO)

CHAT_TEMPLATE = f"""\
{{%- for message in messages -%}}
    {{{{- '{START_OF_TURN}' + message.role + '\\n' -}}}}
    {{%- if message.content is string -%}}
        {{{{- message.content -}}}}
    {{%- else -%}}
        {{%- for part in message.content -%}}
            {{%- if part.type == 'image' -%}}
                {{{{- '{VISION_START}{IMAGE}{VISION_END}' -}}}}
            {{%- else -%}}
                {{{{- part.text -}}}}
            {{%- endif -%}}
        {{%- endfor -%}}
    {{%- endif -%}}
    {{{{- '{END_OF_TURN}\\n' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
    {{{{- '{START_OF_TURN}assistant\\n' -}}}}
{{%- endif -%}}"""

SCENE_WORDS = """
a above against along and around at back background before behind beige below beside between beyond big black blue
board boat bottle box branches brick bridge bright brown building buildings bus bush car carved ceiling chair
chairs child church city clear clouds coast colourful concrete corner covered cream crowd curved dark deep desk distant
dog door doorway dress edge edges face facing far fence field floor flowers foliage foreground frame framed from front
garden glass gold grass gravel green grey ground hair hanging head hill hills holding horizon horse house houses in
interior its jacket lake lamp large leafy leather leaves left light lit long looks low man metal middle mountain
mountains narrow near of old on one open orange over pale park path patterned people person pink plain plant plants
plaster pole purple railing red right river road rock rocks rocky roof room rough round row rows sand sea shade shelf
shirt shop shore shrubs side sidewalk sign sits sky slope small smooth snow soft standing stands steel steep stone
straight street striped sunlit table tall tan teal textured the thick thin three tiled tower town traffic tree
trees trunk two under upper wall walls warm water wave weathered white wide window windows with woman wood wooden woods
yellow
"""


def vocabulary(scenes: Path | None = None) -> Iterator[str]:
    """The texts for a compact reasoner's tokenizer: all that the form of a diagnosis can say, then words of scenes.

    scenes: a file of lines ``{"scene": "..."}`` to take those words from; None: :data:`SCENE_WORDS`.
    """
    for _ in range(1000):  # so often that the form's words become whole tokens before any word of a scene
        yield from (render(EXAMPLE), render(Diagnosis()), SHORT)
    if scenes is None:
        yield from (" " + word for word in SCENE_WORDS.split() * 10)
    else:
        lines = Path(scenes).read_text(encoding="utf-8").splitlines()
        yield from (" " + json.loads(line)["scene"] for line in lines if line.strip())


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Qwen2Tokenizer:
    """Byte-level BPE of at most ``vocab_size`` tokens, the special ones (the last ids) included.

    The same texts in the same order give the same tokenizer. Raises ``ValueError`` if ``vocab_size`` has no room for
    the 256 bytes and the special tokens.
    """
    if vocab_size < (smallest := 256 + len(SPECIAL_TOKENS)):
        raise ValueError(f"vocab_size must be at least {smallest} (bytes and special tokens), got {vocab_size}")
    qwen, bpe = Qwen2Tokenizer().backend_tokenizer, Tokenizer(BPE())
    bpe.normalizer, bpe.pre_tokenizer = qwen.normalizer, qwen.pre_tokenizer
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    trained = json.loads(bpe.to_str())["model"]  # merges can be read from nowhere else
    return Qwen2Tokenizer(
        vocab=trained["vocab"],
        merges=[tuple(pair) for pair in trained["merges"]],
        eos_token=END_OF_TURN,
        extra_special_tokens=list(SPECIAL_TOKENS),
        chat_template=CHAT_TEMPLATE,
    )
