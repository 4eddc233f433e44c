"""Options of ``job k8s render``, and their check before anything is printed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from job.distributed.group import check_shared
from job.errors import UsageError
from job.manifest import Manifest
from job.pipeline.plan import select
from job.stages import stages_for

_MAX_CPUS, _MAX_HOURS = 1024, 24 * 365
# Namespaces are DNS labels. Other names are DNS names with dots, up to 253 characters. The name of
# a queue is also the value of a label, which has at most 63 characters.
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
# REGISTRY:PORT/PATH/NAME:TAG@DIGEST. Only the registry can contain upper-case letters.
_IMAGE_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    rf"{_IMAGE_PART}(?:/{_IMAGE_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_NAMES = {
    "namespace": _LABEL,
    "queue": re.compile(rf"(?=.{{1,63}}$){_SUBDOMAIN.pattern}"),
    "claim": _SUBDOMAIN,
    "secret": _SUBDOMAIN,
    "service_account": _SUBDOMAIN,
    "image": _IMAGE,
}
_NAME_HINT = (
    "Use lower-case letters, digits and '-', with a letter or digit at both ends. All names except "
    "--namespace can also contain dots."
)
_IMAGE_HINT = "Write REGISTRY/NAME:TAG. NAME has no upper-case letters."
_TAINT = re.compile(
    r"(?P<key>(?:[a-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)"
    r"(?:=(?P<value>(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?))?"
    r"(?::(?P<effect>NoSchedule|PreferNoSchedule|NoExecute))?"
)
_QUANTITY = re.compile(r"[1-9][0-9]*(Mi|Gi|Ti|M|G|T)")


@dataclass(frozen=True)
class PodOptions:
    """Options of ``job k8s render``; None keeps the value of ``k8s/base/job.yaml``.

    Attributes:
        image: image to run.
        namespace: namespace of the Job.
        cpus: number of whole CPUs.
        memory: memory limit, such as ``16Gi``.
        storage: size of the scratch volume, such as ``20Gi``; None computes it from the manifest.
        hours: time limit of the Job, in hours.
        parallelism: largest number of pods of an Indexed Job that run at the same time.
        queue: LocalQueue of Kueue, which decides when the Job starts.
        claim: PersistentVolumeClaim to mount at /work, for data and results.
        secret: Secret whose keys become environment variables.
        service_account: ServiceAccount with a cloud role.
        tolerations: taints of nodes that the pods tolerate, as ``KEY[=VALUE][:EFFECT]``.
        until: last stage to run.
        score: render the Job that scores the shards of the test split.
        processes: number of pods that share quantization-aware training. Another Job runs the
            remaining stages.
    """

    image: str | None = None
    namespace: str | None = None
    cpus: int | None = None
    memory: str | None = None
    storage: str | None = None
    hours: float | None = None
    parallelism: int | None = None
    queue: str | None = None
    claim: str | None = None
    secret: str | None = None
    service_account: str | None = None
    tolerations: tuple[str, ...] = ()
    until: str | None = None
    score: bool = False
    processes: int | None = None


def check(manifest: Manifest, singles: Sequence[Manifest], options: PodOptions) -> None:
    """Check options before Kubernetes does.

    Args:
        manifest: the manifest.
        singles: the manifest of each model.
        options: the options.

    Raises:
        UsageError: Kubernetes would reject an option, or the Job would produce no result.
    """
    _check_limits(options)
    _check_names(options)
    for text in options.tolerations:
        toleration(text)
    # Raises an error that lists the stages if --until names an unknown stage.
    select(stages_for(singles[0]), options.until)
    if options.score and (manifest.matrix or manifest.accuracy.shards == 1):
        raise UsageError(
            "--score: expected a manifest without a matrix and with accuracy.shards of at least 2",
            "Use a manifest without a matrix, and set accuracy.shards to the number of pods.",
        )
    if options.parallelism and not pods_of(manifest, options):
        raise UsageError(
            "--parallelism: the Job has one pod",
            "Use --parallelism for a manifest with a matrix, or with --score.",
        )
    if options.processes:
        if options.score:
            raise UsageError(
                "--processes and --score cannot be combined",
                "Render one Job with --processes for training, then one with --score.",
            )
        check_shared(manifest, options.processes)
    for code in (single.model.callable for single in singles):
        if code:
            raise UsageError(
                f"/model/callable: the image does not contain the code of {code!r}",
                "Build an image that contains the package, with the image of the job as base. "
                "Then deploy k8s/base with the new image.",
            )
    if not options.claim and not manifest.output.startswith("s3://"):
        raise UsageError(
            f"/output: {manifest.output!r} is a local folder, which would be deleted with the pod",
            "Add --set output=s3://BUCKET/PREFIX, or --claim with the name of a "
            "PersistentVolumeClaim.",
        )


def _check_limits(options: PodOptions) -> None:
    """Reject limits of a pod that the cluster would reject.

    Raises:
        UsageError: a limit is invalid; names the option.
    """
    for option in ("memory", "storage"):
        value = getattr(options, option)
        if value is not None and not _QUANTITY.fullmatch(value):
            raise UsageError(
                f"--{option}: expected a whole number with a unit, found {value!r}",
                "Write, for example, 16Gi or 500M; instead of 20.5Gi, write 20992Mi.",
            )
    if options.cpus is not None and options.cpus > _MAX_CPUS:
        raise UsageError(
            f"--cpus: expected at most {_MAX_CPUS}, found {options.cpus}",
            "Request at most the CPUs of one node.",
        )
    if options.hours is not None and not 0 < options.hours <= _MAX_HOURS:
        raise UsageError(
            f"--hours: expected more than 0 and at most {_MAX_HOURS}, found {options.hours}",
            "Write, for example, --hours 24.",
        )


def _check_names(options: PodOptions) -> None:
    """Reject names that the cluster would reject.

    Raises:
        UsageError: a name is invalid; names the option.
    """
    for option, pattern in _NAMES.items():
        value = getattr(options, option)
        if value is not None and not pattern.fullmatch(value):
            raise UsageError(
                f"--{option.replace('_', '-')}: {value[:80]!r} is not a valid name",
                _IMAGE_HINT if option == "image" else _NAME_HINT,
            )


def pods_of(manifest: Manifest, options: PodOptions) -> int:
    """Return the number of pods of an Indexed Job; 0 for a Job with one pod."""
    return manifest.accuracy.shards if options.score else len(manifest.matrix or ())


def toleration(text: str) -> dict[str, str]:
    """Convert a taint, written as in ``kubectl taint``, to a toleration.

    Args:
        text: ``KEY=VALUE:EFFECT``. Without a value, every value of the key is tolerated. Without an
            effect, every effect is tolerated.

    Raises:
        UsageError: the text is not a taint.
    """
    found = _TAINT.fullmatch(text)
    if not found:
        raise UsageError(
            f"--toleration: {text[:80]!r} is not a taint",
            "Write KEY=VALUE:EFFECT as in `kubectl taint`, for example dedicated=job:NoSchedule.",
        )
    key, value, effect = found["key"], found["value"], found["effect"]
    made = {"key": key, "operator": "Exists" if value is None else "Equal"}
    return (
        made | ({} if value is None else {"value": value}) | ({"effect": effect} if effect else {})
    )
