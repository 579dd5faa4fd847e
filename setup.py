"""What setup.cfg cannot say: tools/ and configs/ go into the wheel, without a second copy of them in git."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["dfad_seg*"]), "dfad_seg.tools", "dfad_seg.configs"],
    package_dir={"dfad_seg.tools": "tools", "dfad_seg.configs": "configs"},
    package_data={"dfad_seg": ["py.typed"], "dfad_seg.configs": ["**/*"]},
)
