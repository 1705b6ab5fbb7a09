"""A simulated cluster for tests: the domain code runs on it unchanged, fast and deterministically."""

from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk, domain_xml
from tests.sim.guests import Behaviour
from tests.sim.law import LawBroken
from tests.sim.link import Laptop
from tests.sim.scheduler import SimKilled

__all__ = ["Behaviour", "Disk", "Laptop", "LawBroken", "SimCluster", "SimKilled", "domain_xml"]
