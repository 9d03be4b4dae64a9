"""Which network addresses are public: those that a server may visit because somebody told it to.

Source: the IANA registries of special-purpose addresses. They are listed here, since how much of them ipaddress knows
depends on Python's version.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

Address = IPv4Address | IPv6Address

_SPECIAL_V4 = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 "
    "168.63.129.16/32"  # public by number, but the platform's own inside every Azure machine
)
# Protocol assignments with Teredo and benchmarks, documentation, 6to4, documentation. All outside of 2000::/3 is
# refused, and with it the v4-mapped, v4-compatible and NAT64 forms.
_SPECIAL_V6 = "2001::/23 2001:db8::/32 2002::/16 3fff::/20"
_SPECIAL = tuple(ip_network(text) for text in f"{_SPECIAL_V4} {_SPECIAL_V6}".split())
_GLOBAL_V6 = ip_network("2000::/3")


def is_public(address: Address) -> bool:
    """Whether an address belongs to the open internet.

    An IPv6 address that holds an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo) does not, whatever it holds.
    """
    if address.version == 6 and address not in _GLOBAL_V6:
        return False
    return address.is_global and not any(address in network for network in _SPECIAL)
