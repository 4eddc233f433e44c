"""The only place that imports paddle and paddleslim; knows nothing of manifests."""

import os
import warnings

# Read when paddle is imported: quant_aware and convert work on legacy programs, and INT8 through
# oneDNN fails on every PIR model in the releases so far (PaddlePaddle/Paddle issues 77340, 79749).
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112
# oneDNN's ops keep reordered tensors for each thread that ever ran them, and the executor gives an
# op to whichever of four is free: four steps of ResNet50 (batch 16) went from 7 to 15 GB. Ops use
# all cores themselves, so running one after another is as fast or faster.
os.environ["FLAGS_new_executor_serial_run"] = "1"  # noqa: SIM112
# Told by every process that imports it; nothing here compiles.
warnings.filterwarnings("ignore", "No ccache found")
