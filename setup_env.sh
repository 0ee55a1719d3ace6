# Sourced by the run_*.sh scripts: activates .venv (made if there is none) and installs requirements.txt when it changed.
# An active virtual environment is used as it is. PYTHON chooses the interpreter for a new one.
# With --help it shows the head of the script that sources it, and installs nothing.
if [[ "${1:-}" == --help || "${1:-}" == -h ]]; then
  awk 'NR > 1 { if (!sub(/^# ?/, "")) exit; print }' "${BASH_SOURCE[1]##*/}"
  exit 0
fi
if [[ -z "${VIRTUAL_ENV:-}" ]]; then
  [[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
  source .venv/bin/activate
fi
_wanted="$(cat requirements.txt pyproject.toml | cksum) $PWD"
_stamp="$VIRTUAL_ENV/.splavu-requirements"
if [[ "$(cat "$_stamp" 2>/dev/null)" != "$_wanted" ]]; then
  echo "Installing requirements.txt into $VIRTUAL_ENV ..."
  python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  printf '%s\n' "$_wanted" > "$_stamp"
fi
