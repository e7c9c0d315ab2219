"""A program: a command of selfsup on one of the nodes that share this machine, where Ray would choose the head.

argv: the address of the node, and the command.
"""

import sys
from functools import partial

import ray

from selfsup.cli import main

if __name__ == "__main__":
    ray.init = partial(ray.init, _node_ip_address=sys.argv.pop(1))
    main()
