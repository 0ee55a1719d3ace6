#!/usr/bin/env bash
# TriDet on untrimmed videos: train, evaluate, draw a few time lines. Sets itself up; run again, it skips what is done.
#   bash run_tridet.sh                                          the synthetic world, from videos to mAP
#   bash run_tridet.sh tridet/thumos_videoMAE.yaml raw          your features: the YAML file says where they are
#   bash run_tridet.sh tridet/thumos_videoMAE.yaml anonymized --aam saved_models/RUN/model_temp.pth
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh

CONFIG="${1:-tridet/thumos_demo.yaml}"
NAME="${2:-raw}"
OPTIONS=("${@:3}")
RUNS="${SPLAVU_RUNS:-saved_models}"
SECONDS=0
step() { printf '\n[%3d s] %s\n' "$SECONDS" "$*"; "$@"; }

PICTURES=()
if [[ "$CONFIG" == tridet/thumos_demo.yaml ]]; then
  DATA=data/demo
  step python -m splavu synthesize --out "$DATA" --sets thumos14 --seed 0 --size small
  step python feature_extraction/long_videos.py --dataset thumos14 --encoder demo --data "$DATA" --features "$DATA/features"
  OPTIONS+=(--set "output_folder=$RUNS/demo")
  PICTURES=(--pictures 4 --videos "$DATA/thumos14/videos")
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # for so small a network more threads wait for each other
fi

[[ -t 2 ]] || OPTIONS+=(--quiet) # progress bars are for terminals
printf '\n[%3d s] python tridet/train.py %s --output %s %s\n' "$SECONDS" "$CONFIG" "$NAME" "${OPTIONS[*]}"
CHECKPOINT="$(python tridet/train.py "$CONFIG" --output "$NAME" "${OPTIONS[@]}" | tail -n 1)"
step python tridet/eval.py "$CONFIG" "$CHECKPOINT" "${OPTIONS[@]}" "${PICTURES[@]}"
