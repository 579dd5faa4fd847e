"""CamVid in its folders."""
