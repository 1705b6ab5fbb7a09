"""One contract for what a host answers, kept by the simulated host and by a real one."""

import pytest

pytest.register_assert_rewrite("tests.contract.host_contract")
