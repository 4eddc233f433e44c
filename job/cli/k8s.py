"""``job k8s``: Kubernetes resources that run a manifest."""

from typing import Annotated

import typer

from job.cli.options import ManifestArgument, Overrides

app = typer.Typer(
    name="k8s",
    help="Write Kubernetes resources that run a manifest.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _k8s() -> None:
    """Write Kubernetes resources that run a manifest."""


@app.command()
def render(
    manifest: ManifestArgument,
    overrides: Overrides = None,
    image: Annotated[str | None, typer.Option(help="Image with registry and tag.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of the Job.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of each pod. [default: 4]")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each pod. [default: 16Gi]")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Scratch space on the node's disk, for the cache of inputs from S3 and for an "
            "output in S3. [default: computed from the manifest]"
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(min=0.01, help="Time limit of the Job in hours. [default: 24]")
    ] = None,
    parallelism: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of pods of a matrix or of --score that run at the same time. Set it to "
            "the number of pods that the queue can admit at once. [default: all]",
        ),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="LocalQueue of Kueue.")] = None,
    toleration: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE:EFFECT",
            help="Taint of nodes that the pods tolerate, as in `kubectl taint`. VALUE and EFFECT "
            "are optional. Repeat the option for several taints.",
        ),
    ] = None,
    claim: Annotated[
        str | None,
        typer.Option(help="PersistentVolumeClaim to mount at /work, for data and results."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="Secret whose keys become environment variables, such as AWS_*."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")
    ] = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="Score each part of the test split in its own pod. First run all stages before "
            "accuracy, see `job score`.",
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of pods that share the training. Prints a PaddleJob that stops after qat.",
        ),
    ] = None,
    service_account: Annotated[
        str | None, typer.Option(help="ServiceAccount with a cloud role, for example for S3.")
    ] = None,
) -> None:
    """Print a Kubernetes Job that runs a manifest.

    The output also contains a ConfigMap with the manifest. For a manifest with a matrix, the
    command prints an Indexed Job with one pod per model. `job merge` combines the results. With
    --processes, the command prints a PaddleJob for Kubeflow's training operator. Relative paths in
    the manifest are relative to /work.

    \b
    Examples:
      job k8s render manifests/digits.json --claim job-work | kubectl apply --server-side -f -
      job k8s render m.json --set output=s3://bucket/m --secret s3-credentials --cpus 8
      job k8s render m.json --set accuracy.shards=16 --score --claim shared > score.yaml
      job k8s render m.json --processes 4 --claim shared | kubectl apply --server-side -f -
    """
    from job.kubernetes import PodOptions
    from job.kubernetes import render as render_resources
    from job.manifest import load

    options = PodOptions(
        image=image,
        namespace=namespace,
        cpus=cpus,
        memory=memory,
        storage=storage,
        hours=hours,
        parallelism=parallelism,
        queue=queue,
        claim=claim,
        secret=secret,
        service_account=service_account,
        tolerations=tuple(toleration or ()),
        until=until,
        score=score,
        processes=processes,
    )
    typer.echo(render_resources(load(manifest, overrides or ()), options), nl=False)
