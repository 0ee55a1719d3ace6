#!/usr/bin/env bash
# MGFN on long videos of which only "normal" or "abnormal" is known: train, test, frame-level AUC in the last line.
# Sets itself up; run again, it skips what is done.
#   bash run_mgfn.sh                                            the synthetic world, from videos to AUC
#   FEATURES=... TRAIN_LIST=... TEST_LIST=... GT=... bash run_mgfn.sh raw            your features, published settings
#   bash run_mgfn.sh anonymized --aam saved_models/RUN/model_temp.pth               any option of mgfn/main.py after a name
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh

NAME="${1:-raw}"
OPTIONS=("${@:2}")
DATA=data/demo
LISTS="$DATA/ucf_crime"
RUNS="${SPLAVU_RUNS:-saved_models}"
SECONDS=0
step() { printf '\n[%3d s] %s\n' "$SECONDS" "$*"; "$@"; }

if [[ -z "${FEATURES:-}" ]]; then
  step python -m splavu synthesize --out "$DATA" --sets ucf_crime --seed 0 --size small
  step python feature_extraction/long_videos.py --dataset ucf_crime --encoder demo --data "$DATA" --features "$DATA/features"
  FEATURES="$DATA/features/ucf_crime_demo"
  OPTIONS=(@mgfn/demo.txt --plots --videos "$LISTS/videos" "${OPTIONS[@]}")
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # for so small a network more threads wait for each other
fi

[[ -t 2 ]] || OPTIONS+=(--quiet) # progress bars are for terminals
step python mgfn/main.py --features "$FEATURES" --rgb-list "${TRAIN_LIST:-$LISTS/ucf-i3d.list}" \
  --test-rgb-list "${TEST_LIST:-$LISTS/ucf-i3d-test.list}" --gt "${GT:-$LISTS/gt-ucf.npy}" \
  --output "$RUNS/mgfn" --model-name "$NAME" "${OPTIONS[@]}"
