"""The instruction given to the reasoner: the steps and constraints of appendix A.1, in our own words.

The compact reasoner has learned its task and answers :data:`SHORT`; a general model such as Qwen3-VL gets
:data:`FULL`, whose last lines pin the answer down to the form that :func:`rnr.diagnosis.text.parse` reads.
"""

from rnr.diagnosis.text import render
from rnr.diagnosis.types import MAX_SCENE_WORDS, Diagnosis, Fog, Noise, Rain, Shake

EXAMPLE = Diagnosis(
    fog=Fog(55.9, (0.86, 0.91, 0.79), 0.43),
    shake=Shake(20.5, 35, 2.8, 0.21),
    rain=Rain(12.4, 0.002, -12, 21, 1.5, 0.6, (0.86, 0.91, 0.79)),
    noise=Noise(31.0, 0.12, 5.0),
    scene="Red bus with flat sides before a tall brick building; smooth grey road in front, green trees behind.",
)

FULL = f"""Look at this photo and work through the following steps in order.
1. Name the degradations that were applied to it. There are four candidates: fog, motion blur, rain streaks, sensor noise.
2. From step 1, score the severity of each one that is there, from 1 (barely there) to 100 (worst); absence counts as 0.
3. From steps 1 and 2, estimate the parameters of each one that is there: for fog the atmospheric light (RGB, 0 to 1) and \
the mean transmission; for motion blur its direction, effective length and kernel energy; for rain streaks their density, \
slant, length, width, opacity and color; for sensor noise k and b, where the standard deviation at intensity x is k x + b.
4. From all of this, describe the clean scene behind the degradations in at most {MAX_SCENE_WORDS} words: the main \
subjects and their shapes, edges that should be sharp, textures to bring back, regions that should be smooth, likely true \
colors, what lies in front of what. Say nothing of fog, blur, rain, noise, low contrast or artifacts.
5. Check that all of it is right and agrees with itself.
Leave out the severity and parameters of what is absent. Answer in exactly this form, numbers at this width:
{render(EXAMPLE)}"""

SHORT = "Diagnose this photo."
