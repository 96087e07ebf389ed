"""`python -m alexnet_cli` is `alexnet`; so is `torchrun ... -m alexnet_cli`."""

import sys

from alexnet_cli.cli import main

sys.exit(main())
