"""The real receipts, where RECBOOK_REAL names them; a test that needs them is skipped elsewhere, and says so."""

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("RECBOOK_REAL") or "RECBOOK_REAL is not set")
needs_real = pytest.mark.skipif(not REAL.exists(), reason="no real receipts: set RECBOOK_REAL to their path")
