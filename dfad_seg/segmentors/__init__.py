"""Segmentation networks behind one contract, their sources, and their checkpoints."""

from dfad_seg.segmentors.base import NetworkFailed, Segmentor, freeze
from dfad_seg.segmentors.containers import find_state_dict
from dfad_seg.segmentors.convolutions import restore_convolutions
from dfad_seg.segmentors.cost import count_flops, count_parameters
from dfad_seg.segmentors.cut import Cut, CutOptions, cut
from dfad_seg.segmentors.inspection import inspect_file
from dfad_seg.segmentors.inspection_smp import Inspected
from dfad_seg.segmentors.kinds import WEIGHT_OPTIONS, Network, Source, SourceOptions
from dfad_seg.segmentors.optimize import ExportableSegmentor, exportable, is_opaque, optimize_for_distillation
from dfad_seg.segmentors.saved import read_segmentor_file, save_segmentor, state_hash, stored_spec
from dfad_seg.segmentors.sources import SOURCES, STUDENTS, build_segmentor, is_cut_of, load_segmentor
from dfad_seg.segmentors.weights import load_weights
