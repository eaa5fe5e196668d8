import math

import jsonargparse
import pytest
import torch

from rnr import grpo
from rnr.grpo import Advantages, AdvantageWeighted, Algorithm1, Anchored, PolicyGradient, PolicyLoss, Supervised

B, N, TAU = 5, 4, 0.02
LOSSES = [
    Algorithm1(TAU),
    Anchored(TAU, 30.0),
    Anchored(TAU, 0.0),
    AdvantageWeighted(TAU, 0.7),
    AdvantageWeighted(TAU, 0.7, 30.0),
    PolicyGradient(TAU),
    PolicyGradient(TAU, 0.5),
]
EACH_LOSS = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=generator(seed))


def group(rewards):
    """The advantages of one group."""
    return grpo.advantages(torch.tensor([rewards], dtype=torch.float64), floor=0.1)


# Rewards


def test_rewards_by_hand():
    before = torch.tensor([[50.0, 20.0, 0.0, 10.0]])
    after = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [50.0, 20.0, 0.0, 10.0], [30.0, 0.0, 7.0, 40.0]]])
    assert grpo.rewards(before, after).tolist() == [[80.0, 0.0, 3.0]]


def test_an_answer_that_does_not_parse_gives_no_reward():
    before, after = draw(3, 4), draw(3, N, 4)
    after[0, 2] = math.nan
    before[1] = math.nan
    nan = grpo.rewards(before, after).isnan()
    assert nan.tolist() == [[False, False, True, False], [True] * 4, [False] * 4]


@pytest.mark.parametrize(
    ("before", "after"), [((2, 4), (2, 4)), ((2, 4), (3, N, 4)), ((2, 4), (2, N, 3)), ((4,), (2, N, 4))]
)
def test_rewards_of_shapes_that_do_not_fit_are_refused(before, after):
    with pytest.raises(ValueError, match=r"must have shape|differ in photos or in kinds"):
        grpo.rewards(draw(*before), draw(*after))


# Advantages


def test_advantages_have_mean_zero_and_mean_square_one():
    for n in (2, 4, 9):
        advantages = grpo.advantages(draw(B, n) * 100, floor=0.1)
        assert advantages.used.all()
        torch.testing.assert_close(advantages.values.mean(dim=1), torch.zeros(B, dtype=torch.float64))
        torch.testing.assert_close(advantages.values.square().mean(dim=1), torch.ones(B, dtype=torch.float64))


@pytest.mark.parametrize(("scale", "shift"), [(1, 300), (7, 0), (0.5, -40)])
def test_advantages_do_not_depend_on_shift_and_scale_of_the_reward(scale, shift):
    rewards = draw(B, N) * 100
    torch.testing.assert_close(
        grpo.advantages(rewards * scale + shift, floor=0.1).values, grpo.advantages(rewards, floor=0.1).values
    )


def test_the_severity_of_the_degraded_photo_cancels():
    after = draw(B, N, 4) * 100
    first, second = (grpo.advantages(grpo.rewards(draw(B, 4, seed=s) * 100, after), 0.1).values for s in (1, 2))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_groups_that_teach_nothing_are_flagged_and_zero(bad):
    rewards = torch.tensor(
        [[1.0, 2, 3, 4], [1 / 3, 1 / 3, 1 / 3, 1 / 3], [1.0, 2, bad, 4], [1.0, 1.01, 1.02, 1.01], [-5.0, 9, 0, 0]]
    )
    advantages = grpo.advantages(rewards, floor=0.1)
    assert advantages.used.tolist() == [True, False, False, False, True]
    assert (advantages.values[~advantages.used] == 0).all()
    assert advantages.values.isfinite().all()


def test_a_group_of_one_is_not_used():
    assert grpo.advantages(draw(B, 1), floor=0.1).used.sum() == 0


def test_no_gradient_flows_into_the_rewards():
    assert not grpo.advantages(draw(B, N).requires_grad_(), floor=0.01).values.requires_grad


@pytest.mark.parametrize("floor", [0.0, -1.0, math.nan, math.inf])
def test_the_floor_must_be_positive(floor):
    with pytest.raises(ValueError, match="floor must be a finite number above 0, got"):
        grpo.advantages(draw(B, N), floor)


def test_advantages_whose_mask_does_not_fit_cannot_be_built():
    with pytest.raises(ValueError, match="used must be a bool for each of 5 groups"):
        Advantages(draw(B, N), torch.ones(B - 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"used must be a bool .* got torch\.float64"):
        Advantages(draw(B, N), draw(B))
    with pytest.raises(ValueError, match=r"advantages must have shape \(B, N\), got \(4,\)"):
        Advantages(draw(N), torch.ones(N, dtype=torch.bool))


# Energies and policy


def test_energies_are_means_whatever_the_size_of_the_image():
    clean = draw(2, 3, 6, 8)
    offsets = torch.tensor([[0.0, 0.1, -0.2], [0.3, 0.0, 1.0]], dtype=torch.float64)
    energies = grpo.energies(clean[:, None] + offsets[:, :, None, None, None], clean)
    torch.testing.assert_close(energies, offsets.square())


def test_energies_of_half_precision_candidates_are_computed_in_full():
    candidates, clean = draw(1, 2, 3, 8, 8).bfloat16(), draw(1, 3, 8, 8, seed=1).bfloat16()
    assert grpo.energies(candidates, clean).dtype == torch.float32
    torch.testing.assert_close(grpo.energies(candidates, clean), grpo.energies(candidates.float(), clean.float()))


def test_energies_of_another_photo_or_size_are_refused():
    for shape in [(3, 3, 8, 8), (2, 3, 8, 9), (2, 1, 8, 8), (3, 8, 8)]:
        with pytest.raises(ValueError, match=r"clean .* does not fit candidates \(2, 4, 3, 8, 8\)"):
            grpo.energies(draw(2, N, 3, 8, 8), draw(*shape))
    with pytest.raises(ValueError, match=r"candidates must have shape \(B, N, 3, H, W\)"):
        grpo.energies(draw(2, 3, 8, 8), draw(2, 3, 8, 8))


def test_the_policy_is_a_distribution_that_prefers_low_energy():
    energies = draw(B, N) * 0.1
    policy = grpo.log_policy(energies, TAU).exp()
    torch.testing.assert_close(policy.sum(dim=1), torch.ones(B, dtype=torch.float64))
    assert (policy.argsort(dim=1) == energies.argsort(dim=1, descending=True)).all()
    weights = torch.exp(-energies / TAU)
    torch.testing.assert_close(policy, weights / weights.sum(dim=1, keepdim=True))


def test_the_policy_stays_finite_where_its_exponentials_would_not():
    log_policy = grpo.log_policy(torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64), tau=1e-6)
    torch.testing.assert_close(log_policy, torch.tensor([[0.0, -1e6, -5e5]], dtype=torch.float64))


# Losses


@EACH_LOSS
def test_gradients_equal_finite_differences(loss):
    advantages = grpo.advantages(draw(B, N, seed=1) * 100, floor=0.1)
    assert torch.autograd.gradcheck(lambda e: loss(e, advantages), (draw(B, N).mul(0.1).requires_grad_(),))


@EACH_LOSS
def test_gradients_through_the_energies_equal_finite_differences(loss):
    advantages, clean = group([3.0, 10.0, -4.0]), draw(1, 3, 3, 2)
    candidates = draw(1, 3, 3, 3, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: loss(grpo.energies(c, clean), advantages), (candidates,))


@EACH_LOSS
def test_skipped_groups_give_no_gradient_and_count_as_nothing(loss):
    rewards = draw(B, N, seed=1) * 100
    rewards[1], rewards[3, 0] = 5.0, math.nan
    energies = draw(B, N) * 0.1
    energies[1, 2] = math.nan  # not even an exploded one
    energies.requires_grad_()
    value = loss(energies, grpo.advantages(rewards, floor=0.1))
    value.backward()
    kept = [0, 2, 4]
    torch.testing.assert_close(value, loss(energies[kept], grpo.advantages(rewards[kept], floor=0.1)) * len(kept) / B)
    assert (energies.grad[[1, 3]] == 0).all()
    assert energies.grad[kept].abs().sum(dim=1).min() > 0


@EACH_LOSS
def test_it_is_one_loss_however_groups_are_dealt_out_over_processes_some_of_which_use_none(loss):
    """Which take the mean of their gradients."""
    rewards, energies = draw(B, N, seed=1) * 100, draw(B, N) * 0.1
    rewards[1], rewards[3, 0] = 5.0, math.nan
    alone = [loss(energies[i : i + 1], grpo.advantages(rewards[i : i + 1], floor=0.1)) for i in range(B)]
    torch.testing.assert_close(loss(energies, grpo.advantages(rewards, floor=0.1)), torch.stack(alone).mean())


@EACH_LOSS
def test_without_a_group_to_learn_from_the_loss_is_zero_and_can_be_differentiated(loss):
    energies = draw(B, N).requires_grad_()
    value = loss(energies, grpo.advantages(torch.ones(B, N), floor=0.1))
    value.backward()  # a process of several must not miss its backward pass
    assert value.item() == 0
    assert (energies.grad == 0).all()


@EACH_LOSS
def test_losses_refuse_energies_of_another_shape(loss):
    with pytest.raises(ValueError, match=r"energies \(5, 3\) and advantages \(5, 4\) differ in shape"):
        loss(draw(B, 3), grpo.advantages(draw(B, N) * 100, 0.1))


@EACH_LOSS
def test_a_step_along_the_gradient_favours_the_best_candidate(loss):
    energies = torch.full((1, N), 0.05, dtype=torch.float64, requires_grad=True)
    loss(energies, group([0.0, 1.0, 2.0, 5.0])).backward()
    assert energies.grad[0, 3] == energies.grad.max() > 0
    assert (energies.grad[0].diff() >= 0).all()


def test_algorithm_1_is_written_as_the_paper_writes_it():
    energies, advantages = draw(B, N) * 0.1, grpo.advantages(draw(B, N, seed=1) * 100, 0.1)
    expected = 0.0
    for b in range(B):
        normaliser = sum(math.exp(-energies[b, j].item() / TAU) for j in range(N))
        for k in range(N):
            probability = math.exp(-energies[b, k].item() / TAU) / normaliser
            expected -= advantages.values[b, k].item() * math.log(probability) / N / B
    assert Algorithm1(TAU)(energies, advantages).item() == pytest.approx(expected, rel=1e-12)


def test_algorithm_1_is_the_covariance_of_advantage_and_error():
    energies, advantages = draw(B, N) * 0.1, grpo.advantages(draw(B, N, seed=1) * 100, 0.1)
    torch.testing.assert_close(Algorithm1(TAU)(energies, advantages), (advantages.values * energies).mean() / TAU)


def test_algorithm_1_falls_without_bound_as_a_bad_candidate_gets_worse():
    advantages = group([0.0, 0.0, 0.0, 9.0])
    values = [Algorithm1(1.0)(torch.tensor([[e, 0, 0, 0]], dtype=torch.float64), advantages) for e in (0, 1, 1e3, 1e6)]
    slopes = [(b - a).item() / step for a, b, step in zip(values, values[1:], (1, 1e3 - 1, 1e6 - 1e3), strict=False)]
    assert slopes == pytest.approx([advantages.values[0, 0].item() / N] * 3)  # a constant, negative slope
    assert slopes[0] < 0
    assert values[-1] < -1e5


@pytest.mark.parametrize("weight", [0.0, 10.0, 200.0])
def test_anchored_is_at_least_zero_and_reaches_it(weight):
    loss = Anchored(TAU, weight)
    for seed in range(20):
        advantages = grpo.advantages(draw(B, N, seed=seed) * 100, 0.1)
        energies = (draw(B, N, seed=seed + 100) * 10 ** (8 * draw(B, N, seed=seed + 200) - 4)).requires_grad_()
        value = loss(energies, advantages)
        value.backward()
        assert value >= 0
        assert (energies.grad >= 0).all()  # no candidate is ever pushed away from the clean image
        assert loss(torch.zeros(B, N, dtype=torch.float64), advantages) == 0


def test_anchored_is_algorithm_1_plus_mean_squared_error_where_nothing_is_clipped():
    energies = draw(B, N) * 0.1
    for seed in range(20):
        advantages = grpo.advantages(draw(B, N, seed=seed) * 100, 0.1)
        weight = math.sqrt(N - 1) / TAU
        expected = Algorithm1(TAU)(energies, advantages) + weight * energies.mean()
        torch.testing.assert_close(Anchored(TAU, weight)(energies, advantages), expected)


def test_the_bound_from_which_nothing_is_clipped_is_tight():
    worst = group([0.0, 9.0, 9.0, 9.0])
    assert worst.values.min().item() == pytest.approx(-math.sqrt(N - 1))
    energies = torch.ones(1, N, dtype=torch.float64)
    below = 0.9 * math.sqrt(N - 1) / TAU
    assert Anchored(TAU, below)(energies, worst) > Algorithm1(TAU)(energies, worst) + below


def test_advantage_weighted_is_smallest_where_the_policy_is_its_target():
    loss, advantages = AdvantageWeighted(TAU, 0.7), group([3.0, 10.0, -4.0, 8.0])
    best = (-TAU * advantages.values / 0.7).add(1.0).requires_grad_()
    value = loss(best, advantages)
    value.backward()
    target = torch.softmax(advantages.values / 0.7, dim=1)
    torch.testing.assert_close(value, -(target * target.log()).sum())  # the target's entropy
    torch.testing.assert_close(best.grad, torch.zeros_like(best), atol=1e-12, rtol=0)
    for seed in range(20):
        assert loss(best + 0.1 * draw(1, N, seed=seed), advantages) > value
    torch.testing.assert_close(loss(best + 5, advantages), value)  # it does not see the level


def test_the_policy_gradient_climbs_the_expected_reward():
    """REINFORCE on a Gaussian policy: for r(a) = -|a - best|^2 the expected reward is -|mean - best|^2 - D sigma^2."""
    sigma, size, count = 0.3, 3, 40_000
    mean, best = draw(size).requires_grad_(), draw(size, seed=1) + 1
    noise = torch.randn(1, count, size, dtype=torch.float64, generator=generator())
    actions = mean.detach() + sigma * torch.cat([noise, -noise], dim=1)  # in pairs, which takes most of the chance out
    rewards = -(actions - best).square().sum(dim=2)
    loss = PolicyGradient(tau=2 * sigma**2 / size, clip=100.0)
    loss(grpo.distances(mean.expand(1, 1, -1), actions), grpo.advantages(rewards, 1e-6)).backward()
    expected = torch.func.grad(lambda m: -(m - best).square().sum())(mean.detach()) / rewards.std()
    torch.testing.assert_close(-mean.grad * 100, expected, rtol=0.05, atol=0.02)  # the loss divides A by clip


def test_the_policy_gradient_is_the_gradient_of_diffusion_nft_where_it_is_on_policy():
    """r |v+ - a|^2 + (1 - r) |v- - a|^2 with the implicit v+- = (1 -+ b) old +- b v and r = (1 + A / clip) / 2."""
    beta, clip = 0.7, 2.0
    actions, old = draw(1, N, 6), draw(6, seed=1)
    advantages = group([3.0, 10.0, -4.0, 8.0])
    new, other = old.clone().requires_grad_(), old.clone().requires_grad_()
    share = ((1 + advantages.values / clip) / 2).clamp(0, 1)
    good, bad = (1 - beta) * old + beta * new, (1 + beta) * old - beta * new
    squares = [(each - actions).square().mean(dim=2) for each in (good, bad)]
    (share * squares[0] + (1 - share) * squares[1]).mean().backward()
    PolicyGradient(1.0, clip)(grpo.distances(other.expand(1, 1, -1), actions), advantages).backward()
    torch.testing.assert_close(new.grad, beta * other.grad)


def test_the_control_learns_from_every_group_and_from_no_reward():
    energies = (draw(B, N) * 0.1).requires_grad_()
    rewards = draw(B, N, seed=1) * 100
    rewards[1], rewards[3, 0] = 5.0, math.nan
    value = Supervised(3.0)(energies, grpo.advantages(rewards, floor=0.1))
    torch.testing.assert_close(value, 3 * energies.mean())
    assert torch.equal(value, Supervised(3.0)(energies, grpo.advantages(-rewards, floor=0.1)))


def test_weight_on_the_level_is_added_to_advantage_weighted():
    energies, advantages = draw(B, N) * 0.1, grpo.advantages(draw(B, N, seed=1) * 100, 0.1)
    plain = AdvantageWeighted(TAU, 0.7)(energies, advantages)
    torch.testing.assert_close(AdvantageWeighted(TAU, 0.7, 5.0)(energies, advantages), plain + 5 * energies.mean())


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf])
def test_nonsense_settings_are_refused(bad):
    for build in (Algorithm1, lambda tau: Anchored(tau, 1.0), lambda tau: AdvantageWeighted(tau, 1.0), PolicyGradient):
        with pytest.raises(ValueError, match="tau must be a finite number above 0, got"):
            build(bad)
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got"):
        AdvantageWeighted(TAU, bad)
    with pytest.raises(ValueError, match="clip must be a finite number above 0, got"):
        PolicyGradient(TAU, bad)
    with pytest.raises(ValueError, match="weight must be a finite number above 0, got"):
        Supervised(bad)
    if bad != 0:
        with pytest.raises(ValueError, match="weight must be a finite number of at least 0, got"):
            Anchored(TAU, bad)


@pytest.mark.parametrize("mode", ["yaml", "omegaconf"])
def test_a_config_file_can_choose_the_loss(tmp_path, mode):
    class Stage:
        def __init__(self, loss: PolicyLoss):
            self.loss = loss

    path = tmp_path / "config.yaml"
    path.write_text("stage: {loss: {class_path: rnr.grpo.Anchored, init_args: {tau: 0.02, weight: 30.0}}}")
    parser = jsonargparse.ArgumentParser(parser_mode=mode, exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Stage, "stage")
    config = parser.parse_args([f"--config={path}"])
    assert parser.instantiate(config).stage.loss == Anchored(TAU, 30.0)
    with pytest.raises(jsonargparse.ArgumentError):
        parser.parse_args([f"--config={path}", "--stage.loss.init_args.temperature=1"])
