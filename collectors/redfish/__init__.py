"""Power and energy of the machine from its BMC, over Redfish (DMTF DSP0266, DSP2046).

    collector.py   Redfish: opens, publishes what the last round read
    settings.py    what it can be told
    rounds.py      the thread that reads the BMC, so that each round ends just before a tick
    bmc.py         what a BMC has is found out once, and read on every round
    discovery.py   which chassis is this machine, and what it has; chassis.py one of them
    planning.py    what is asked for on every round, from what was found
    meters.py      where in a resource a reading stands, and which values are none
    vendors.py     whose figures do not mean what their names say
    session.py     logging in, going on after the BMC has rebooted, logging out
    connection.py  one HTTP(S) connection, answers bounded in time and size

A BMC takes a second for an answer and a few for a TLS handshake, so one connection and one session
are kept, only the resources that have readings are asked for, and nobody waits for it but a
thread of its own.
"""

from telemetryd.collectors.redfish.collector import Redfish
from telemetryd.collectors.redfish.settings import RedfishConfig

__all__ = ["Redfish", "RedfishConfig"]
