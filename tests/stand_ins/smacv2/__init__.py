"""A stand-in for https://github.com/oxwhirl/smacv2: its interface, with SMAX battles underneath."""

from smacv2 import env  # noqa: F401
