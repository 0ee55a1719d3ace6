#!/usr/bin/env bash
# Lint, types, the site and tests, in the active virtual environment or in .venv. Arguments go to pytest.
#   bash run_tests.sh           all but what is long by nature
#   bash run_tests.sh --slow    every test, and how much of the code they run
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a worker per core: more threads would wait for each other

COVERAGE=()
[[ " $* " != *" --slow "* ]] || COVERAGE=(--cov=splavu --cov-report=term:skip-covered --cov-fail-under=85)
ruff check .
ruff format --check .
pyright --project pyproject.toml
SITE="$(mktemp -d)"
NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict --site-dir "$SITE"
rm -r "$SITE"
# What the tests of one file share is made once, for they stay on one worker.
exec python -m pytest -n auto --dist loadfile "${COVERAGE[@]}" "$@"
