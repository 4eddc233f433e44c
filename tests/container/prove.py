"""Run while the image is built: a real INT8 inference, and what `job doctor` says of all else.

Prints the diagnosis as JSON. Ends with 1 when the installation cannot do the job; a CPU without
AVX512_VNNI is the builder's and not the image's, and is only noted.
"""

import json
import sys

from job.doctor.checks import PROBLEM, examine

_OF_THE_BUILDER = ("avx512f", "avx512_vnni")

diagnosis = examine()
print(json.dumps(diagnosis.as_json(), indent=2))
faults = [finding for finding in diagnosis.findings if finding.status == PROBLEM]
for fault in faults:
    print(f"{fault.name}: {fault.found}. {fault.advice}", file=sys.stderr)
sys.exit(any(fault.name not in _OF_THE_BUILDER for fault in faults))
