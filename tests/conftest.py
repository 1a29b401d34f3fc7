"""For all tests: threads that wait must not spin, or a busy machine takes many times as long."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

collect_ignore = ["plugin"]  # a package of its own, which test_plugin.py installs and tests
