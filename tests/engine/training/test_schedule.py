import pytest

from job.engine.training.schedule import Schedule
from job.engine.training.session import Recipe

pytestmark = pytest.mark.engine


def rates(kind, total, *, milestones=(), gamma=0.1, warmup=0.0):
    schedule = Schedule(kind, 1.0, milestones, gamma, warmup)
    return [schedule.rate(step, total) for step in range(total)]


def test_piecewise_falls_at_its_milestones():
    found = rates("piecewise", 8, milestones=(0.5, 0.75))
    assert found == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)


def test_cosine_falls_from_base_towards_zero():
    found = rates("cosine", 100)
    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.001


def test_constant_stays():
    assert set(rates("constant", 5)) == {1.0}


def test_warm_up_rises_linearly_to_the_base():
    found = rates("constant", 10, warmup=0.4)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, *[1] * 6])
    assert rates("cosine", 10, warmup=0.4)[4] == 1


@pytest.mark.parametrize("kind", ["piecewise", "cosine", "constant"])
def test_one_step_has_a_positive_rate(kind):
    assert rates(kind, 1, milestones=(0.5,), warmup=0.05)[0] > 0


@pytest.mark.parametrize(
    ("epochs", "max_iters", "steps", "at"),
    [
        (2, None, 8, {4, 8}),
        (0, 3, 3, {3}),
        (5, 6, 6, {4, 6}),
    ],
)
def test_steps_and_evaluations(epochs, max_iters, steps, at):
    schedule = Schedule("constant", 1.0, (), 0.1, 0.0)
    recipe = Recipe(epochs, max_iters, "sgd", 0.9, 0.0, schedule, 0, "cpu", 60.0, 1)
    assert recipe.steps(4) == steps
    assert recipe.evaluate_at(4) == at


def test_more_evaluations_than_steps_evaluates_each_step():
    schedule = Schedule("constant", 1.0, (), 0.1, 0.0)
    recipe = Recipe(1, None, "sgd", 0.9, 0.0, schedule, 0, "cpu", 60.0, 100)
    assert recipe.evaluate_at(3) == {1, 2, 3}
