"""Power of the whole system as the board's management controller (BMC) measures it, by DCMI.

    collector.py   Ipmi: reads a file or asks a host
    settings.py    what it can be told
    answer.py      what the programs print, and what their complaints mean

DCMI 1.5, 6.6.1 "Get Power Reading", with its current power alone: minimum, maximum and average span
a time that the BMC chooses. Two ways to it:

- A file that telemetryd-ipmi.service, root's and on a timer, writes: the output of `ipmitool` or
  of FreeIPMI's `ipmi-dcmi`. The daemon itself is never let near /dev/ipmi0, which is full control
  of the BMC: who has it can switch the machine off.
- With `host`, one of the two programs asks a BMC over the network (IPMI 2.0, lanplus), with the
  least privilege that may read.

Some boards leave out GPUs, or whatever hangs on power supplies of its own, and nothing in their
answer tells. Where the components together exceed this meter under load, it is such a board:
`boundary = "subcomponent"` keeps its power from being taken for the node's input.
"""

from telemetryd.collectors.ipmi.collector import Ipmi
from telemetryd.collectors.ipmi.settings import IpmiConfig

__all__ = ["Ipmi", "IpmiConfig"]
