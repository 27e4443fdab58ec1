"""Where every joule goes: what went into the node, what became of it, and for whom.

    families.py   the names
    candidate.py  one meter that the node's input energy could be taken from
    sources.py    which of them is, and when that changes
    places.py     where they stand in the batches, and the ratio of the power supplies
    node.py       the node's input energy
    devices.py    energy of GPUs and CPU packages with memory, from their meters
    activity.py   what GPUs do; sharing.py for whom, under MIG by instance
    cpu_share.py  how busy the CPUs were
    users.py      CPU time of the owners, and GPUs that jobs hold
    moments.py    when owners came and went between two readings of theirs
    ledger.py     energy of one device, tick by tick, in closed windows
    idle.py       the power of a device that does nothing for nobody, learned over days
    account.py    one device: its ledger and its idle power
    split.py      one closed window: five states that add up to the node's input
    results.py    what windows add up to; bill.py money and carbon; budget.py the power budget
    balance.py    EnergyBalance, the derivation that puts them together

Everything is worked out over closed windows of at least a minute, because a BMC answers every 30 s
and a GPU every second: over anything shorter the parts would lie at each step of the load. A window
begins and ends where the node's meter was read; ticks of devices that reach over its edge are
divided there in proportion of time.
"""
