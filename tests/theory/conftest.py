import hypothesis
import pytest


@pytest.fixture
def unshrunk():
    """Counterexamples are looked for, not made small: what matters is that there is one."""
    profile = hypothesis.settings.get_current_profile_name()
    parent = hypothesis.settings.get_profile("ci")
    generate = [hypothesis.Phase.generate]
    hypothesis.settings.register_profile("unshrunk", parent, phases=generate)
    hypothesis.settings.load_profile("unshrunk")
    yield
    hypothesis.settings.load_profile(profile)
