"""How street scenes are drawn; `dfad_seg.datasets.street_scenes` is the way in."""
