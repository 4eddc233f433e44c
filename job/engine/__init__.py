"""The only place that imports paddle and paddleslim; knows nothing of manifests."""

import os

# Read when paddle is imported: quant_aware and convert work on legacy programs, and INT8 through
# oneDNN fails on every PIR model in the releases so far (PaddlePaddle/Paddle issues 77340, 79749).
os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112
