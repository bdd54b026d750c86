"""What pyproject.toml cannot say of the wheel: `conf/`, which lies beside `src/` in a checkout, is inside the package there."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["src", "src.*"]), "src.conf"],
    package_dir={"src.conf": "conf"},
    package_data={"src": ["py.typed", "**/*.bash", "**/*.html"], "src.conf": ["**/*.yaml"]},
    include_package_data=False,
)
