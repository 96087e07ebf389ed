"""`python -m alexnet_cli` is `alexnet`; so is `torchrun ... -m alexnet_cli`."""

import sys

from alexnet_cli.commands import main

sys.exit(main())
