"""Whose figures do not mean what their names say."""

from __future__ import annotations

from dataclasses import dataclass

from telemetryd.collectors.redfish.session import Document


@dataclass(frozen=True, slots=True)
class Vendor:
    """`names`: how the vendor appears in lower case, in the service root or on a chassis.
    `consumed`: the domain that the whole machine's power and energy belong to."""

    names: tuple[str, ...]
    consumed: str
    why: str
    source: str


# Not in it, because a rule for all of them serves: Supermicro's X10 answers 0 W (no reading of a
# machine that runs is 0 W); Dell's iDRAC 7 and 8 give a supply's rating as its PowerInputWatts
# (no supply draws more than its capacity); Lenovo's XCC lists the CPUs' and the memory's share
# beside the whole in PowerControl (only the whole is read).
VENDORS = (
    Vendor(
        ("hpe", "hp", "hewlett packard enterprise"),
        "psu_output",
        "PowerConsumedWatts is what the power supplies give out, not what they take in",
        "recorded from one: 565 W = 222 + 200 + 86 + 57 W of LastPowerOutputWatts",
    ),
)
_SYSTEM = "system"


def vendor_of(*documents: Document) -> Vendor | None:
    """The vendor whose figures need care, by the service root and the chassis; None for others."""
    names: set[str] = set()
    for document in documents:
        for said in (document.get("Vendor"), document.get("Manufacturer")):
            if isinstance(said, str):
                names.add(said.strip().lower())
        oem = document.get("Oem")
        if isinstance(oem, dict):
            names.update(str(key).lower() for key in oem)
    return next((vendor for vendor in VENDORS if not names.isdisjoint(vendor.names)), None)


def domain_of_consumed(vendor: Vendor | None) -> str:
    """What the power of a whole chassis is: its input, unless the vendor is known otherwise."""
    return vendor.consumed if vendor is not None else _SYSTEM
