"""Collections by which something outside looks into a model; where none is given, the program is as if none existed.

`INTERMEDIATES` takes what layers store when it is mutable. `PERTURBATIONS` holds numbers that are added to attention
weights, zeros as a rule, so that a gradient for them is one for the weights. `RELEVANCY` holds what
evaluation.relevancy puts in place of derivatives. Scanned layers have them stacked, as they have their parameters.
"""

from __future__ import annotations

INTERMEDIATES, PERTURBATIONS, RELEVANCY = "intermediates", "perturbations", "relevancy"

STACKED = (INTERMEDIATES, PERTURBATIONS, RELEVANCY)
"""The collections that a scan over layers cuts along its first axis."""
