"""Training in the ranks other than 0: the same steps on another share of each batch.

Rank 0 sends the program and the state. Only rank 0 evaluates, saves and exports.
"""

from typing import TYPE_CHECKING

from paddle import static

from job.engine.training.collective import Membership, Plan, ProcessGroup
from job.engine.training.evaluation import TrainingBatch
from job.engine.training.programs import cpu
from job.engine.training.session import Recipe
from job.engine.training.stepper import Stepper, remaining_batches
from job.errors import DataError
from job.events import Events

if TYPE_CHECKING:
    from job.data.loader import Loader


def follow(
    meeting: Membership, recipe: Recipe, *, loader: "Loader", events: Events
) -> "static.Scope | None":
    """Train together with rank 0.

    Args:
        meeting: rank, number of processes, and host and port of rank 0's store.
        recipe: settings of the training, equal to rank 0's.
        loader: training batches, equal to rank 0's.
        events: receives progress and messages.

    Returns:
        The trained state; None if the training stopped before its last step.

    Raises:
        DataError: this process reads other images than rank 0.
        PeerLost: the connection to another process was lost.
    """
    peers = ProcessGroup(*meeting)
    scope, executor = static.Scope(), static.Executor(cpu())
    program, plan = peers.follow(scope)
    check(plan, recipe, loader, peers.rank)
    stepper = Stepper(
        program, plan.loss, plan.learning_rate, plan.feeds, scope, executor, peers, seed=recipe.seed
    )
    done = plan.step
    with static.scope_guard(scope):
        for step, batch in remaining_batches(
            plan.step,
            plan.total_steps,
            plan.steps_per_epoch,
            lambda epoch, first: (
                TrainingBatch(read.images, read.targets) for read in loader.batches(epoch, first)
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
    """Check that this process and rank 0 train on the same images.

    Raises:
        DataError: the images, their labels or the number of steps differ.
    """
    steps = loader.batches_per_epoch
    ours = (recipe.steps(steps), steps, loader.identity)
    if ours != (plan.total_steps, plan.steps_per_epoch, plan.data):
        raise DataError(
            f"rank {rank} reads other training images than rank 0: {steps} batches per epoch "
            f"against {plan.steps_per_epoch} on rank 0, or other labels",
            "Give all processes the same data: a shared folder, or S3.",
        )
