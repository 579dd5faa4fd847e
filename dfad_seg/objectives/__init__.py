"""What the two players want: discrepancies, priors, regularisers and label losses.

To add a discrepancy, write one function in `discrepancy.py` (or a file of its own), add a line to `DISCREPANCIES` and a
test; `student_loss: {name: weight}` then accepts it. A prior is a line of `PRIORS`.
"""

from dfad_seg.objectives.class_shares import ClassShares
from dfad_seg.objectives.discrepancy import DISCREPANCIES, TEMPERED, Discrepancy, LogitAdjustment, weighted_discrepancy
from dfad_seg.objectives.features import FeatureMatching, Interpolation
from dfad_seg.objectives.priors import PRIORS, BatchNormPrior, GeneratorObjective, build_priors
