#!/usr/bin/env bash
# Lint and test everything, in the active virtual environment or in .venv. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh
ruff check .
ruff format --check .
pyright --project pyproject.toml
# A worker per core; the tests of one file stay on one worker, which makes what they share once.
exec python -m pytest -n auto --dist loadfile --cov=splavu --cov-report=term:skip-covered --cov-fail-under=85 "$@"
