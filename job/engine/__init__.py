"""The only package that imports Paddle and PaddleSlim. It does not read manifests."""

import os
import warnings

# Paddle reads these flags while it is imported.
# quant_aware needs legacy programs, and oneDNN INT8 fails on every PIR model in the
# releases so far (PaddlePaddle/Paddle issues 77340, 79749).
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112
# By default the executor runs each op on any of four threads, and oneDNN keeps reordered tensors
# for every thread that ran the op. Four steps of ResNet50 (batch 16) then needed 15 GB instead of
# 7 GB.
# Serial execution is as fast or faster, because each op uses all cores.
os.environ["FLAGS_new_executor_serial_run"] = "1"  # noqa: SIM112
# Paddle warns about a missing ccache at every import, but the engine compiles nothing.
warnings.filterwarnings("ignore", "No ccache found")
