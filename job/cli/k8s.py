"""``job k8s``: a manifest for a cluster."""

from typing import Annotated

import typer

from job.cli.options import ManifestArgument, Overrides

app = typer.Typer(
    name="k8s",
    help="Kubernetes: a manifest as a Job.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _k8s() -> None:
    """Kubernetes: a manifest as a Job."""


@app.command()
def render(
    manifest: ManifestArgument,
    overrides: Overrides = None,
    image: Annotated[str | None, typer.Option(help="The image, with its registry and tag.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Where to put the Job.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Whole CPUs. [default: 4]")] = None,
    memory: Annotated[str | None, typer.Option(help="Such as 16Gi, the default.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Disk of the node for scratch, such as 20Gi, the default.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, help="End the Job after these. [default: 24]")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Kueue's LocalQueue to wait in.")] = None,
    claim: Annotated[
        str | None,
        typer.Option(help="A PersistentVolumeClaim to mount at /work, for data and results."),
    ] = None,
    secret: Annotated[
        str | None, typer.Option(help="A Secret whose keys become variables, such as AWS_*.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Score the test split's parts, after --until int8.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=2, help="Train in so many pods: a PaddleJob, until stage qat."),
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(help="A ServiceAccount that stands for a role in a cloud.")
    ] = None,
) -> None:
    """Print a Job that runs a manifest, and a ConfigMap that holds it.

    A manifest with a matrix becomes an Indexed Job, one model a pod; `job merge` joins the results.
    Several processes that train together become a PaddleJob of Kubeflow's training operator.
    Relative paths of the manifest start at /work.

    \b
    Examples:
      job k8s render manifests/digits.json --claim job-work | kubectl apply -f -
      job k8s render m.json --set output=s3://bucket/m --secret s3-credentials --cpus 8
      job k8s render m.json --set accuracy.shards=16 --score --claim shared | kubectl apply -f -
      job k8s render m.json --processes 4 --claim shared | kubectl apply -f -
    """
    from job.kubernetes import PodOptions
    from job.kubernetes import render as rendered
    from job.manifest import load

    options = PodOptions(
        image=image,
        namespace=namespace,
        cpus=cpus,
        memory=memory,
        storage=storage,
        hours=hours,
        queue=queue,
        claim=claim,
        secret=secret,
        service_account=service_account,
        until=until,
        score=score,
        processes=processes,
    )
    typer.echo(rendered(load(manifest, overrides or ()), options), nl=False)
