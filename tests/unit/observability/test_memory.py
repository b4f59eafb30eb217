import numpy as np
import pytest
import torch

from seif_nemo.observability.device_peaks import bf16_peak_tflop_per_s
from seif_nemo.observability.memory import ProcessPeak, peak_memory

MIB = 2**-10  # GiB


def test_the_peak_of_a_process_begins_anew() -> None:
    if peak_memory(torch.device("cpu")) is None:
        pytest.skip("this system does not let a process reset its peak (/proc/self/clear_refs)")
    meter = ProcessPeak()
    meter.take()
    before = meter.take()
    block = np.ones(96 * 2**17)  # 96 MiB, touched
    del block
    high = meter.take()
    after = meter.take()
    assert 90 * MIB < high - before < 110 * MIB
    assert after < high - 80 * MIB


def test_a_peak_is_known_by_the_exact_name_only() -> None:
    assert bf16_peak_tflop_per_s("NVIDIA H100 80GB HBM3") == 989.4
    assert bf16_peak_tflop_per_s("NVIDIA H100") is None
