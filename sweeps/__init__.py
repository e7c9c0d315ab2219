"""Sweep files, the driver that runs them, searches, their status and their report."""

from selfsup.pipelines.cluster.auth import use_token

use_token()  # before any module here imports ray
