"""What setup.cfg cannot say: configs/ goes into the wheel, without a second copy of it in git."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dfad_seg*"]), "dfad_seg.configs"],
    package_dir={"dfad_seg.configs": "configs"},
    package_data={"dfad_seg": ["py.typed", "runs/*.html", "recipes/*.json"], "dfad_seg.configs": ["**/*"]},
)
