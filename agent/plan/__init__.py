"""The plan of an executable: which probes will be attached and where, what they need to know, and why the rest is off.

A pure function of the executable's bytes, the offset table and the BPF objects' types. `gospan inspect` prints it,
the daemon carries it out.
"""

from agent.plan.make import make_plan
from agent.plan.model import LibraryPlan, Off, Plan, PlannedField, PlannedProbe, Status

__all__ = ["LibraryPlan", "Off", "Plan", "PlannedField", "PlannedProbe", "Status", "make_plan"]
