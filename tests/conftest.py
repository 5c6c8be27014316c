from __future__ import annotations

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, max_examples=50)
hypothesis.settings.register_profile("nightly", deadline=None, print_blob=True, max_examples=1_000)
hypothesis.settings.load_profile("ci")  # `--hypothesis-profile=nightly` for more examples


@pytest.fixture(autouse=True)
def _no_leaks_between_tests():
    """A test that changes torch's global state is a bug of that test."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    assert torch.get_default_dtype() is dtype
    assert torch.is_grad_enabled()
    torch.set_num_threads(threads)
