import warnings

from seif_nemo.observability.logging import quiet_known_warnings


def test_known_warnings_are_silenced_and_others_are_not():
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        warnings.simplefilter("always")
        quiet_known_warnings()
        warnings.warn("Transformer Engine and Apex are not installed. Falling back to Torch optimizers.", stacklevel=1)
        warnings.warn("`torch.distributed.all_gather_into_tensor` is deprecated. Please …", stacklevel=1)
        warnings.warn("your disk is full", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["your disk is full"]
