import pytest
from diagnosis_strategies import diagnoses, subsets
from hypothesis import example, given
from hypothesis import strategies as st

from rnr.diagnosis import FIELDS, KINDS, Diagnosis, Fog, Noise, ParseFailure, Rain, Shake, parse, render
from rnr.diagnosis.prompt import EXAMPLE, FULL, SHORT
from rnr.diagnosis.types import FINDINGS, MAX_SCENE_WORDS, quantities

NONE = "Degradations: fog no, motion blur no, rain streaks no, sensor noise no."
FOG = "Degradations: fog yes, motion blur no, rain streaks no, sensor noise no."
NOISE = "Degradations: fog no, motion blur no, rain streaks no, sensor noise yes."
SHAKE = "Degradations: fog no, motion blur yes, rain streaks no, sensor noise no."


def test_the_full_text():
    assert render(EXAMPLE) == (
        "Degradations: fog yes, motion blur yes, rain streaks yes, sensor noise yes.\n"
        "Severity: fog 055.9, motion blur 020.5, rain streaks 012.4, sensor noise 031.0.\n"
        "Fog: atmospheric light 0.86 0.91 0.79, transmission 0.43.\n"
        "Motion blur: direction 035 deg, length 02.8 px, energy 0.210.\n"
        "Rain streaks: density 0.0020, slant -12 deg, length 21 px, width 1.5 px, opacity 0.60, color 0.86 0.91 0.79.\n"
        "Sensor noise: k 0.120, b +05.0.\n"
        "Scene: Red bus with flat sides before a tall brick building; smooth grey road in front, green trees behind."
    )


def test_a_clean_photo_without_scene_is_one_line():
    assert render(Diagnosis()) == NONE
    assert parse(NONE) == Diagnosis()


@given(diagnoses, subsets)
@example(Diagnosis(shake=Shake(1, 179.6, 0.04, 0)), FIELDS)  # a direction that rounds to a full turn
@example(Diagnosis(noise=Noise(1, 0, -0.04)), FIELDS)  # a negative number that rounds to zero
@example(Diagnosis(rain=Rain(100, 1, -0.4, 1, 0.5, 1, (1, 1, 1))), FIELDS)
def test_render_and_parse_are_inverse_up_to_the_printed_precision(diagnosis, fields):
    text = render(diagnosis, fields)
    parsed = parse(text)
    assert isinstance(parsed, Diagnosis), parsed
    assert render(parsed) == text
    assert_close(parsed, diagnosis.keep(fields))
    assert parse(f"\n {text} \n") == parsed


def assert_close(parsed, diagnosis):
    assert parsed.scene == diagnosis.scene
    for kind in KINDS:
        assert type(parsed[kind]) is type(diagnosis[kind])
        for key, spec in quantities(FINDINGS[kind]).items() if diagnosis[kind] is not None else ():
            read, meant = getattr(parsed[kind], key), getattr(diagnosis[kind], key)
            assert (read is None) == (meant is None)
            if read is not None:
                for a, b in zip(read, meant, strict=True) if spec.count > 1 else [(read, meant)]:
                    error = abs(a - b)
                    error = min(error, spec.period - error) if spec.period else error
                    assert error <= 0.5 * 10**-spec.decimals + 1e-9


@given(st.text() | st.from_regex(r"(Degradations|Severity|Fog|Scene): [a-z0-9 .,+-]*\n?"))
def test_arbitrary_text_never_raises_and_is_never_taken_for_another(text):
    check_parse(text)


@given(diagnoses, subsets, st.data())
def test_neither_does_a_diagnosis_with_typing_errors(diagnosis, fields, data):
    text = render(diagnosis, fields)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(start + 4, len(text))))
        put = data.draw(st.text("0123456789+-. \n", max_size=3) | st.text(max_size=2) | st.just(text[start:stop] * 2))
        text = text[:start] + put + text[stop:]
    check_parse(text)


@given(diagnoses, st.randoms(use_true_random=False))
def test_nor_one_with_its_lines_out_of_order(diagnosis, random):
    lines = render(diagnosis).split("\n")
    random.shuffle(lines)
    check_parse("\n".join(lines))


def check_parse(text):
    answer = parse(text)
    if isinstance(answer, ParseFailure):
        assert answer.text == text
        assert answer.reason
    else:
        assert render(answer) == text.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "first line must state presence"),
        ("The photo is foggy.", "first line must state presence"),
        (NONE.replace("no.", "maybe."), "first line must state presence"),
        (f"{NONE}\r\nScene: trees", "first line must state presence"),
        (f"{NONE}\nSeverity: fog 050.0.", "severity line must score just what is present"),
        (f"{FOG}\nSeverity: fog 050.0, sensor noise 001.0.", "severity line must score just what is present"),
        (f"{FOG}\nSeverity: fog 50.0.", "severity line must score just what is present"),
        (f"{FOG}\nSeverity: fog 900.0.", "fog.severity must lie within [1, 100], got 900.0"),
        (f"{FOG}\nSeverity: fog 000.0.", "fog.severity must lie within [1, 100], got 0.0"),
        (f"{FOG}\nFog: atmospheric light 0.50 0.50, transmission 0.50.", "malformed parameters of fog"),
        (f"{FOG}\nFog: atmospheric light 0.50 0.50 1.01, transmission 0.50.", "within [0, 1], got 1.01"),
        (f"{FOG}\nFog: atmospheric light 0.50 0.50 ٠.50, transmission 0.50.", "malformed parameters of fog"),
        (f"{FOG}\nSensor noise: k 0.100, b +05.0.", "unexpected line 'Sensor noise: k 0.100, b +05.0.'"),
        (f"{NOISE}\nSensor noise: k 0.100, b 05.0.", "malformed parameters of noise"),
        (f"{NOISE}\nSensor noise: k 0.100, b -00.0.", "not in the one printed form"),
        (f"{SHAKE}\nMotion blur: direction 180 deg, length 02.8 px, energy 0.210.", "not in the one printed form"),
        (f"{NONE}\nScene: trees\nScene: trees", "unexpected line 'Scene: trees'"),
        (f"{NONE}\nScene: red  trees", "not in the one printed form"),
        (f"{NONE}\nScene: {'word ' * 31}", "at most 30 words, got 31"),
        (f"{NONE}\n\nScene: trees", "unexpected line ''"),
        (f"{NONE} I hope this helps!", "first line must state presence"),
    ],
)
def test_failures_say_what_is_wrong(text, reason):
    failure = parse(text)
    assert isinstance(failure, ParseFailure)
    assert failure.text == text
    assert reason in failure.reason


def test_thirty_words_parse():
    assert isinstance(parse(f"{NONE}\nScene: {' '.join(['word'] * MAX_SCENE_WORDS)}"), Diagnosis)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_prints_at_one_width(kind):
    table = quantities(FINDINGS[kind])
    middle = {key: (0.5,) * 3 if spec.count > 1 else (spec.low + spec.high) / 2 for key, spec in table.items()}
    width = len(render(Diagnosis(**{kind: FINDINGS[kind](**middle)})))
    for key, spec in table.items():
        smallest = max(spec.low, 0.3 * 10**-spec.decimals)
        for value in (spec.low, spec.high, smallest, -smallest if spec.low < 0 else smallest, spec.high - smallest):
            finding = FINDINGS[kind](**{**middle, key: (value,) * 3 if spec.count > 1 else value})
            assert len(render(Diagnosis(**{kind: finding}))) == width, (key, value)


def test_presence_alone_says_no_more():
    assert render(EXAMPLE, ["presence"]) == render(EXAMPLE).split("\n")[0]
    assert parse(FOG) == Diagnosis(fog=Fog(None, None, None))


def test_fields_are_taken_out_of_any_iterable():
    assert render(EXAMPLE, iter(FIELDS)) == render(EXAMPLE)


def test_the_prompt_ends_in_an_example_that_parses():
    example = FULL[FULL.index("\nDegradations: ") + 1 :]
    assert parse(example) == EXAMPLE
    assert "at most 30 words" in FULL
    assert SHORT not in FULL
