import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torchmetrics.functional.image import peak_signal_noise_ratio

from rnr.data.photos import open_photo, shipped_photos
from rnr.degradation.shake import blur, gaussian_kernel
from rnr.diagnosis import KINDS, Diagnosis, Fog, Noise, Rain, Shake
from rnr.diagnosis.vector import encode
from rnr.models import inverse
from rnr.models.compact import OWN_ERROR, CompactRestorer, CompactSize, box_ssim, statistics
from rnr.models.haze import HazeNetwork
from rnr.models.inverse import Physics, Power
from rnr.models.unet import UNetSize

SIZE = CompactSize(UNetSize((8, 8, 16), (1, 1, 1), 16), UNetSize((8, 8), (1, 1), 16))
ALL = Diagnosis(
    Fog(50, (0.9, 0.85, 0.8), 0.5),
    Shake(15, 30, 2.0, 0.2),
    Rain(10, 0.002, 0, 20, 1.5, 0.6, (1, 1, 1)),
    Noise(20, 0.1, 5),
)
MIXED = [ALL, None, Diagnosis(), ALL.keep(["presence"]), Diagnosis(noise=ALL.noise)]
LIKE = torch.zeros(())


def restorer(head=0.1, **options):
    """One that has learned something: its head, zero at first, is not."""
    torch.manual_seed(0)
    model = CompactRestorer(size=SIZE, **options)
    torch.nn.init.normal_(model.network.head.weight, std=head) if head else None
    return model


def images(count, height=64, width=64):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def physical(image, diagnosis):
    physics = Physics.of([diagnosis], image)
    facts = torch.zeros(1, 1)
    t = HazeNetwork(1, SIZE.haze)(image, physics, facts).t
    variance = inverse.noise_variance(image, physics)
    power = Power.of(image, variance)
    filtered = inverse.wiener(inverse.derain(image, physics, variance), physics.kernel, variance, power)
    return inverse.dehaze(filtered, physics.light, t)


@pytest.mark.parametrize("diagnosis", MIXED, ids=["all", "none", "clean", "presence", "noise"])
def test_untrained_it_is_the_physical_inverse(photo, diagnosis):
    image = photo[None]
    restored = restorer(head=0).restore(image, [diagnosis], [0])
    change = physical(image, diagnosis) - image
    power = change.square().mean()
    torch.testing.assert_close(restored, (image + power / (power + OWN_ERROR) * change).clamp(0, 1), rtol=0, atol=1e-5)


def shaken_wide():
    """A photo, and the same shaken by more than a kernel holds: at half its size, then enlarged."""
    photo = torch.from_numpy(open_photo(shipped_photos("train")[0].path)).permute(2, 0, 1)[None].float() / 255
    shake = [torch.tensor([value]) for value in (20.0, 5.5, 0.16)]
    sharp, blurred = (
        F.interpolate(each, scale_factor=2, mode="bicubic").clamp(0, 1)
        for each in (photo, blur(photo, gaussian_kernel(*shake)))
    )
    return sharp, (blurred * 255).round() / 255, Shake(67.0, 20.0, 11.0, 0.08)


def test_a_shake_wider_than_its_kernels_is_undone_in_a_smaller_copy():
    sharp, blurred, shake = shaken_wide()
    shipped = CompactRestorer("shipped/restorer").eval()
    restored = shipped.restore(blurred, [Diagnosis(shake=shake)], [0])
    with torch.no_grad():
        at_full_size = shipped._repaired(blurred, [Diagnosis(shake=shake)]).clamp(0, 1)
    before, full, after = (peak_signal_noise_ratio(each, sharp, 1.0).item() for each in (blurred, at_full_size, restored))
    assert after > full + 0.5 > before + 0.5


def test_so_it_is_beside_others_and_in_any_size():
    model, wide = restorer(), dataclasses.replace(ALL, shake=Shake(100, 30, 40.0, 0.05))
    both = model.restore(images(2), [wide, ALL], [0, 0])
    torch.testing.assert_close(both[:1], model.restore(images(2)[:1], [wide], [0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(both[1:], model.restore(images(2)[1:], [ALL], [0]), atol=1e-5, rtol=0)
    with torch.no_grad():
        first = model.eval().rollout(images(2), [wide, ALL], [0, 0], 2)[:, 0]
    torch.testing.assert_close(first.clamp(0, 1), both, atol=1e-5, rtol=0)
    rest = model.restore(images(2)[:1], [dataclasses.replace(wide, shake=None)], [0])
    assert not both[:1].equal(rest)
    for size in ((1, 1), (3, 70), (16, 16)):
        assert model.restore(images(1, *size), [wide], [0]).isfinite().all()


@pytest.mark.parametrize("gradient", [True, False])
def test_in_a_training_step_any_diagnoses_take_as_many_passes(monkeypatch, gradient):
    """One more on one of several processes, and it would wait for the others' share of the weights for ever."""
    model, passes = restorer().train(), []
    refine = model._refine
    monkeypatch.setattr(model, "_refine", lambda images, *seen: passes.append(len(images)) or refine(images, *seen))
    wide = dataclasses.replace(ALL, shake=Shake(100, 30, 40.0, 0.05))
    with torch.set_grad_enabled(gradient):
        for diagnoses in ([wide, ALL], [ALL, ALL], [Diagnosis(), None], [Diagnosis(), Diagnosis()]):
            restored = model(images(2), diagnoses)
            if gradient:
                restored.sum().backward()
    assert passes == [2, 2, 2, 2]


def test_what_is_restored_does_not_depend_on_the_mode():
    model, wide = restorer(), dataclasses.replace(ALL, shake=Shake(100, 30, 40.0, 0.05))
    modes = [model.train(mode).restore(images(2), [wide, Diagnosis()], [0, 0]) for mode in (True, False)]
    assert torch.equal(*modes) and not model.training


def test_of_small_changes_less_is_made_and_of_large_ones_all(photo, monkeypatch):
    model, change = restorer(), torch.tensor([1.0, -1.0]).repeat(3, 64, 32)
    sizes = (0.1 * OWN_ERROR**0.5, OWN_ERROR**0.5, 100 * OWN_ERROR**0.5)
    pixels = photo.expand(3, -1, -1, -1)
    monkeypatch.setattr(model, "_refine", lambda images, *_: images + torch.tensor(sizes).view(-1, 1, 1, 1) * change)
    made = ((model(pixels, [ALL] * 3) - pixels) * change).mean(dim=(1, 2, 3))
    assert (made / torch.tensor(sizes)).tolist() == pytest.approx([1 / 101, 0.5, 1 / (1 + 1e-4)], rel=5e-3)


def test_what_is_said_to_be_well_stays_as_it_is(photo):
    pair = photo.expand(2, -1, -1, -1)
    untrained = restorer(head=0).restore(pair, [None, Diagnosis()], [0, 1])
    torch.testing.assert_close(untrained, pair, rtol=0, atol=1e-5)
    beside_another, alone = (
        restorer().restore(pair, [None, Diagnosis()], [0, 1]),
        restorer().restore(pair[:1], [Diagnosis()], [0]),
    )
    assert not beside_another[0].equal(photo)
    assert beside_another[1].equal(photo) and alone[0].equal(photo)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (130, 70), (8, 64)])
@pytest.mark.parametrize("tile", [64, 512])
def test_every_size_is_kept(size, tile):
    restored = restorer(tile=tile, overlap=24).restore(images(2, *size), [ALL, None], [0, 1])
    assert restored.shape == (2, 3, *size)
    assert ((restored >= 0) & (restored <= 1)).all()


def test_tiles_agree_with_the_whole(photo):
    image = F.interpolate(photo[None], (128, 96), mode="bicubic").clamp(0, 1)
    whole, tiles = (restorer(tile=tile, overlap=32).restore(image, [ALL], [0]) for tile in (512, 80))
    # A tile's Wiener filter has borders of its own.
    assert (whole - tiles).abs().mean() < 0.004
    assert not whole.equal(tiles)


def test_saved_and_loaded_it_is_the_same_to_the_bit(tmp_path):
    model = restorer()
    model.save(tmp_path / "a/b")
    loaded = CompactRestorer(str(tmp_path / "a/b"))
    assert loaded.size == SIZE
    for name, weight in model.state_dict().items():
        assert loaded.state_dict()[name].equal(weight)
    assert loaded.restore(images(5), MIXED, range(5)).equal(model.restore(images(5), MIXED, range(5)))


def test_what_the_physics_leaves_alone_is_saved_and_told_to_the_network_all_the_same(tmp_path):
    size = dataclasses.replace(SIZE, inverted=("noise",))
    CompactRestorer(size=size).save(tmp_path)
    model = CompactRestorer(str(tmp_path))
    assert model.size == size
    (physics, facts, haze), all_of_it = model.see(images(1), [ALL]), restorer().see(images(1), [ALL])
    noise = Physics.of([Diagnosis(noise=ALL.noise)], images(1))
    assert all(ours.equal(theirs) for ours, theirs in zip(vars(physics).values(), vars(noise).values(), strict=True))
    assert (haze.t == 1).all() and (all_of_it[2].t < 1).any() and facts.equal(all_of_it[1])


def test_physics_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="the physics inverts fog, shake, rain, noise, not snow"):
        dataclasses.replace(SIZE, inverted=("fog", "snow"))


def test_of_several_checkpoints_the_first_that_is_there_is_loaded(tmp_path):
    model = restorer()
    model.save(tmp_path / "mine")
    loaded = CompactRestorer([str(tmp_path / "none"), str(tmp_path / "mine")])
    assert loaded.network.head.weight.equal(model.network.head.weight)


@pytest.mark.parametrize(
    ("config", "kind"),
    [({"class": "rnr.models.other.Other"}, "rnr.models.other.Other"), ({"model_type": "qwen3_vl"}, "qwen3_vl")],
)
def test_another_models_folder_is_refused_by_name(tmp_path, config, kind):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{tmp_path}: holds weights of {kind}, not of a compact restorer"):
        CompactRestorer(str(tmp_path))


def test_weights_of_another_version_are_refused_by_name(tmp_path):
    restorer().save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["network.head.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"(?s)model.safetensors: these weights do not fit .*network.head.bias"):
        CompactRestorer(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"model.safetensors: these weights do not fit"):
        CompactRestorer(str(tmp_path))


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights in .*none"):
        CompactRestorer(str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="Qwen/Qwen-Image-Edit"):
        CompactRestorer("Qwen/Qwen-Image-Edit")


def test_the_loss_falls_on_one_batch(photo):
    clean = photo.expand(2, -1, -1, -1)
    degraded = clean * 0.5 + 0.45
    diagnoses = [Diagnosis(fog=Fog(53, (0.9, 0.9, 0.9), 0.5)), None]
    model = restorer(head=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = model.loss(degraded, clean, diagnoses, torch.Generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert max(losses[-3:]) < losses[0] - 0.02  # two decibels


def test_the_loss_is_that_of_the_photo_put_out(photo):
    clean = torch.stack([photo, photo.flip(-1)])
    degraded = (clean * torch.tensor([0.8, 0.5]).view(-1, 1, 1, 1)).clamp(0, 1)
    model = restorer()
    out = model(degraded, [None, None])
    decibels = peak_signal_noise_ratio(out, clean, data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))
    expected = 1 - decibels / 100 + 0.2 * (1 - box_ssim(out, clean))
    torch.testing.assert_close(model.loss(degraded, clean, [None, None], torch.Generator()), expected)
    assert model.loss(clean, clean, [Diagnosis()] * 2, torch.Generator()).item() == pytest.approx(0.5, abs=1e-3)
    assert box_ssim(clean, clean).item() == pytest.approx(1, abs=1e-5)
    assert box_ssim(degraded, clean) > box_ssim(1 - clean, clean)


def test_box_ssim_is_that_of_the_formula():
    x, y = images(2, 12, 16).double().unbind()
    total = []
    for c in range(3):
        for top in (0, 4):
            for left in (0, 4, 8):
                a, b = (z[c, top : top + 8, left : left + 8].flatten() for z in (x, y))
                va, vb = a.var(correction=0), b.var(correction=0)
                covariance = ((a - a.mean()) * (b - b.mean())).mean()
                luminance = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
                total.append(luminance * (2 * covariance + 9e-4) / (va + vb + 9e-4))
    torch.testing.assert_close(box_ssim(x[None], y[None]), torch.stack(total).mean())


def test_candidates_of_a_group_differ_and_the_first_is_the_plain_answer():
    model, photos = restorer(), images(2)
    diagnoses = [ALL, Diagnosis(fog=ALL.fog)]
    candidates = model.rollout(photos, diagnoses, [3, 4], group=4)
    assert candidates.shape == (2, 4, 3, 64, 64)
    torch.testing.assert_close(candidates[:, 0], model(photos, diagnoses), rtol=0, atol=1e-5)
    for group in candidates:
        distances = torch.cdist(group.flatten(1), group.flatten(1))
        assert distances[~torch.eye(4, dtype=torch.bool)].min() > 0.1


def test_candidates_follow_their_seeds():
    model, photos = restorer(), images(2)
    first, second, other = (model.rollout(photos, [ALL, ALL], seeds, group=3) for seeds in ([3, 4], [3, 4], [3, 5]))
    assert first.equal(second)
    torch.testing.assert_close(first[0], other[0])
    assert (first[1, 1:] - other[1, 1:]).abs().max() > 1e-3


def test_candidates_carry_gradient_to_every_weight():
    model = restorer()
    model.rollout(images(1), [ALL], [0], group=2).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


def test_a_photo_is_restored_alike_in_any_company():
    model, photos = restorer(), images(5)
    together = model.restore(photos, MIXED, range(5))
    for i in range(5):
        alone = model.restore(photos[i : i + 1], MIXED[i : i + 1], [i])
        torch.testing.assert_close(together[i], alone[0], rtol=0, atol=1e-5)


def test_what_the_diagnosis_says_matters():
    model, photos = restorer(), images(5)[:1].expand(5, -1, -1, -1)
    restored = model.restore(photos, MIXED, range(5))
    assert (restored[0] - restored[1]).abs().mean() > 0.01


DARK = Diagnosis(noise=Noise(20, 0.1, 0.0))  # what is black has no noise: the root of its variance has no slope


@pytest.mark.parametrize("diagnosis", [*MIXED, DARK], ids=["all", "none", "clean", "presence", "noise", "dark"])
def test_gradients_with_respect_to_the_photo_are_finite(diagnosis):
    photos = images(1)
    photos[..., :32, :32] = 0
    photos.requires_grad_()
    restorer()(photos, [diagnosis]).square().mean().backward()
    assert photos.grad.isfinite().all()
    assert photos.grad.ne(0).any()


def test_nothing_known_absent_and_not_stated_are_told_apart():
    codes = encode([None, Diagnosis(), ALL.keep(["presence"]), ALL.keep(["presence", "severity"]), ALL], LIKE)
    assert torch.pdist(codes).min() >= 1
    assert codes[0].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_code_tells_zero_from_not_stated(kind):
    finding = dataclasses.replace(ALL[kind], severity=None)
    numbers = {f.name: 0.0 for f in dataclasses.fields(finding) if f.name in ("transmission", "length", "density", "b")}
    if kind == "rain":
        numbers.pop("length")
    zero = Diagnosis(**{kind: dataclasses.replace(finding, **numbers)})
    unstated = Diagnosis(**{kind: dataclasses.replace(finding, **dict.fromkeys(numbers))})
    a, b = encode([zero, unstated], LIKE)
    assert not a.equal(b)


def test_a_code_tells_how_sure_a_finding_is():
    unsure = dataclasses.replace(ALL, fog=dataclasses.replace(ALL.fog, chance=0.6))
    difference = encode([ALL], LIKE) - encode([unsure], LIKE)
    assert difference[difference != 0].tolist() == pytest.approx([0.4])


def shaken(direction):
    return Diagnosis(shake=Shake(20, direction, 3.0, 0.2))


def test_directions_close_on_the_circle_are_close_in_the_code():
    near, also_near, same, across = encode([shaken(d) for d in (179, 1, 180, 91)], LIKE)
    zero = encode([shaken(0)], LIKE)[0]
    assert (near - also_near).norm() < 0.1
    torch.testing.assert_close(same, zero)
    assert (also_near - across).norm() == pytest.approx(2, abs=1e-5)


def test_every_number_of_a_code_is_of_about_unit_size():
    worst = Diagnosis(
        Fog(100, (1, 1, 1), 1), Shake(60, 90, 8, 1), Rain(50, 0.01, 90, 64, 9, 1, (1, 1, 1)), Noise(100, 0.3, 20)
    )
    assert encode([worst, ALL], LIKE).abs().max() < 5


def test_statistics_are_those_of_the_photo():
    photos = images(2, 40, 56)
    found = statistics(photos).double().view(2, 5, 3)
    flat = photos.double().flatten(2)
    quantiles = [flat.quantile(q, dim=2) for q in (0.02, 0.5, 0.98)]
    expected = torch.stack([flat.mean(dim=2), flat.std(dim=2, correction=0), *quantiles], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (300, 2), (500, 400)])
def test_statistics_of_a_plain_photo(size):
    plain = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, *size)
    found = statistics(plain).view(5, 3)
    assert found[1].abs().max() < 1e-4
    for row in (0, 2, 3, 4):
        assert found[row].tolist() == pytest.approx([0.2, 0.4, 0.6], abs=1e-5)


def test_weights_of_too_few_digits_are_refused():
    restorer = CompactRestorer(size=SIZE).bfloat16()
    with pytest.raises(ValueError, match=r"must be float32, got torch\.bfloat16; --trainer\.precision bf16-mixed does"):
        restorer(images(1, 12, 16), [None])
