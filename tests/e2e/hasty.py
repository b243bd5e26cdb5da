"""The program in a cloud, whose hours are short: `python -m tests.e2e.hasty ...` as `emlab.apps.custodian`."""

import sys

from emlab.apps import custodian

if __name__ == "__main__":
    custodian.RETAIN_S = 0.05
    sys.exit(custodian.main())
