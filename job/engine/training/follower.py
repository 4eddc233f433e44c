"""Training beside rank 0: the same steps on another share of each batch, and nothing else.

Program and state come from rank 0, which evaluates, saves and exports.
"""

from typing import TYPE_CHECKING

from paddle import static

from job.engine.training.collective import Location, Plan, ProcessGroup
from job.engine.training.loop import Stepper, TrainingBatch, remaining_batches
from job.engine.training.programs import cpu
from job.engine.training.session import Recipe
from job.errors import DataError
from job.events import Events

if TYPE_CHECKING:
    from job.data.loader import Loader


def follow(
    meeting: Location, recipe: Recipe, *, loader: "Loader", events: Events
) -> "static.Scope | None":
    """Train with rank 0 to the end.

    Args:
        meeting: where the processes meet.
        recipe: how to train, the same as rank 0's.
        loader: training batches, the same as rank 0's.
        events: told of progress.

    Returns:
        The trained state; None if a process was asked to stop before the last step.

    Raises:
        DataError: this process reads other images than rank 0.
        PeerLost: another process is gone.
    """
    peers = ProcessGroup(*meeting)
    scope, executor = static.Scope(), static.Executor(cpu())
    program, plan = peers.follow(scope)
    check(plan, recipe, loader, peers.rank)
    stepper = Stepper(
        program, plan.loss, plan.learning_rate, scope, executor, peers, seed=recipe.seed
    )
    done = plan.step
    with static.scope_guard(scope):
        for step, batch in remaining_batches(
            plan.step,
            plan.total_steps,
            plan.steps_per_epoch,
            lambda epoch, first: (
                TrainingBatch(read.images, read.labels) for read in loader.batches(epoch, first)
            ),
        ):
            rate = recipe.schedule.rate(step, plan.total_steps)
            loss = stepper.run(batch, rate, step)
            done = step + 1
            events.progress("qat", done, plan.total_steps, "steps", f"loss {loss:.3f}")
            if peers.agree(events.stopping):
                break
    peers.leave()
    return scope if done == plan.total_steps else None


def check(plan: Plan, recipe: Recipe, loader: "Loader", rank: int) -> None:
    """Make sure that this process trains on what rank 0 trains on.

    Raises:
        DataError: it does not.
    """
    steps = loader.batches_per_epoch
    ours = (recipe.steps(steps), steps, loader.identity)
    if ours != (plan.total_steps, plan.steps_per_epoch, plan.data):
        raise DataError(
            f"rank {rank} reads other training images than rank 0: {steps} batches an epoch, "
            f"against {plan.steps_per_epoch}, or other labels",
            "Give all processes the same data: a folder that they share, or S3.",
        )
