"""Dense bf16 peaks of GPUs by the exact name that CUDA gives. Source: NVIDIA's data sheets."""

_BF16_TFLOP_PER_S = {
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA H100 80GB HBM3": 989.4,  # SXM
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200": 989.4,  # SXM
    "NVIDIA H200 NVL": 835.5,
    "NVIDIA B200": 2250.0,
}


def bf16_peak_tflop_per_s(device_name: str) -> float | None:
    """TFLOP/s of a device; None for one that is not in the table: no utilisation is better than an invented one."""
    return _BF16_TFLOP_PER_S.get(device_name)
