#!/usr/bin/env bash
# The whole idea on a synthetic world: videos -> frozen features -> anonymizer -> utility, privacy, report.
#   bash run_demo.sh            few people and short videos, 4 minutes on 2 cores; saved_models/quick/report.md
#   bash run_demo.sh --full     more people, longer videos, all attackers, and the paper's own protocol on pictures;
#                               15 minutes on 2 cores; saved_models/demo/report.md
# Sets itself up (a .venv here, or the active virtual environment). Run again, it skips whatever is done.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
case "$*" in
  "" | --full | --help | -h) ;;
  *) echo "run_demo.sh: $*: unknown; bash run_demo.sh --help" >&2 && exit 2 ;;
esac
source ./setup_env.sh

if [[ "$*" == --full ]]; then
  NAME=demo SIZE=small SETS=hmdb51,vispr,thumos14,ucf_crime STATIC=10 MORE_OF_ROBUST=() MORE_OF_MGFN=() MORE_OF_AAM=()
  MORE_OF_BATCH=(--set num_epochs=100) MORE_OF_ATTACKS=()
  # Seconds that the parts take on 2 cores, for the time that is left.
  PARTS=(190 170 2 30 90 12 65 270 10)
else
  NAME=quick SIZE=quick SETS=hmdb51,thumos14,ucf_crime STATIC=4
  MORE_OF_ROBUST=(--set erase_rank=20) # there are fewer clips to find directions in
  MORE_OF_MGFN=(--lr 0.0005 --batch-size 16 --test-freq 0)
  MORE_OF_AAM=(--set tad_config=tridet/thumos_quick.yaml --set num_epochs=20 --set val_freq=10)
  MORE_OF_BATCH=(--set num_epochs=30 --set val_freq=10)
  MORE_OF_ATTACKS=(--set "attackers=('logistic', 'mlp')" --set "seeds=(0,)")
  PARTS=(65 50 3 12 25 8 24 30 6)
fi

DATA="data/$NAME"
RUNS="${SPLAVU_RUNS:-saved_models}"
HERE=(--quiet --set "data_root=$DATA" --set "fb_frame_pool=$STATIC")
SECONDS=0 PACE=(20 20) LAST=0 BEGAN=0 # PACE: seconds that parts took here, and on 2 idle cores
part() { # WHAT: say how far we are
  local left=0 seconds
  ((4 * (SECONDS - BEGAN) < LAST)) || PACE=($((PACE[0] + SECONDS - BEGAN)) $((PACE[1] + LAST))) # not of what was skipped
  for seconds in "${PARTS[@]}"; do left=$((left + seconds)); done
  printf '\n[%d s, at most about %d s left] %s\n' "$SECONDS" "$((left * PACE[0] / PACE[1]))" "$1"
  LAST="${PARTS[0]}" BEGAN="$SECONDS" PARTS=("${PARTS[@]:1}")
}
run() { printf '  %s\n' "$*" && OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$@"; } # more threads would wait for each other
join() { # wait for what was started with &, a core each; fail if any of it did
  local job failed=0
  for job in $(jobs -p); do wait "$job" || failed=$?; done
  return "$failed"
}
detector() { # NAME [--aam CHECKPOINT ...]: a fresh TriDet, trained and tested
  local name="$1" options=("${@:2}" --set "output_folder=$RUNS/$NAME" --quiet)
  run python tridet/train.py "tridet/thumos_$NAME.yaml" --output "$name" "${options[@]}"
  run python tridet/eval.py "tridet/thumos_$NAME.yaml" "$RUNS/$NAME/thumos_${NAME}_$name" "${options[@]}"
}
anomalies() { # NAME [--aam CHECKPOINT ...]: a fresh MGFN, trained and tested
  local lists="$DATA/ucf_crime"
  run python mgfn/main.py @mgfn/demo.txt --rgb-list "$lists/ucf-i3d.list" --test-rgb-list "$lists/ucf-i3d-test.list" \
    --gt "$lists/gt-ucf.npy" --features "$DATA/features/ucf_crime_demo" --output "$RUNS/$NAME" --model-name "mgfn_$1" \
    "${MORE_OF_MGFN[@]}" "${@:2}" --quiet
}
anonymizer() { # RUN PARAMS [--set ...]
  run python multitask_train_fa.py --params "params/$2" "${HERE[@]}" --set "run_id=$NAME/$1" "${@:3}"
}
train_head() { # RUN [--set ...]
  run python train_ft.py --params params/params_demo_ft.py --quiet --set "data_root=$DATA" --set "run_id=$NAME/$1" "${@:2}"
}
attack() { # RUN [--set ...]
  run python privacy_eval.py --params params/params_demo_fb.py "${HERE[@]}" --set "run_id=$NAME/$1" "${@:2}"
}

part "Videos of acting people, in the own layouts of $SETS"
run python -m splavu synthesize --out "$DATA" --sets "$SETS" --seed 0 --size "$SIZE"

part "Frozen features: clips, and $STATIC static clips a video"
EXTRACT=(--encoder demo --data "$DATA" --features "$DATA/features")
run python feature_extraction/feature_extraction_action.py "${EXTRACT[@]}" --dataset hmdb51 --static "$STATIC"
[[ "$SETS" != *vispr* ]] || run python feature_extraction/feature_extraction_action.py "${EXTRACT[@]}" --dataset vispr
run python feature_extraction/long_videos.py "${EXTRACT[@]}" --dataset thumos14
run python feature_extraction/long_videos.py "${EXTRACT[@]}" --dataset ucf_crime

part "The anonymizer that we recommend: fitted in closed form, without a private label"
anonymizer robust params_robust.py "${MORE_OF_ROBUST[@]}"
ROBUST=(--aam "$RUNS/$NAME/robust/model_temp.pth" --aam-serving alone)

part "TriDet and MGFN on raw features, from which the published anonymizer's co-training starts"
detector raw &
anomalies raw &
join

part "The published anonymizer; and one as the reference trains it, a batch of clips being one sequence"
anonymizer aam params_demo.py --set "saved_ft_tad_model=$RUNS/$NAME/thumos_${NAME}_raw" \
  --set "saved_ft_ad_model=$RUNS/$NAME/mgfn_raw/model_temp.pth" "${MORE_OF_AAM[@]}" &
anonymizer aam_batch params_demo.py --set batch_as_sequence=True --set ft_tad_loss_weight=0 \
  --set ft_ad_loss_weight=0 "${MORE_OF_BATCH[@]}" &
join
AAM="$RUNS/$NAME/aam/model_temp.pth"
BATCH=(--set "saved_fa_model=$RUNS/$NAME/aam_batch/model_temp.pth")

part "Action recognition: fresh heads, tested on unseen subjects"
{
  train_head ft_raw --set anon=False
  train_head ft_anonymized --set "saved_fa_model=${ROBUST[1]}"
  train_head ft_aam --set "saved_fa_model=$AAM"
} &
{
  train_head ft_batch_in_batch "${BATCH[@]}" --set serving=batch
  train_head ft_batch_alone "${BATCH[@]}"
} &
join

part "Action detection and anomaly detection: fresh detectors"
{
  detector robust "${ROBUST[@]}"
  anomalies robust "${ROBUST[@]}"
  anomalies aam_alone --aam "$AAM" --aam-serving alone
} &
{
  detector aam_alone --aam "$AAM" --aam-serving alone
  detector aam_video --aam "$AAM"
  anomalies aam_video --aam "$AAM"
} &
join

part "Privacy: fresh attackers on what is released; then one checkpoint judged in its batch and alone"
FEW=(--set "attackers=('logistic', 'mlp')" --set "seeds=(0,)")
{
  attack privacy --set "saved_fa_model=${ROBUST[1]}" "${MORE_OF_ATTACKS[@]}"
  attack privacy_batch_in_batch "${FEW[@]}" "${BATCH[@]}" --set serving=batch
} &
{
  attack privacy_aam --set "saved_fa_model=$AAM" "${MORE_OF_ATTACKS[@]}"
  attack privacy_batch_alone "${FEW[@]}" "${BATCH[@]}"
} &
join
[[ "$SETS" != *vispr* ]] || attack privacy_published --set protocol=published --set dataset=vispr \
  --set "views=('static',)" "${BATCH[@]}" --set "seeds=(0,)"

part "The report"
run python -m splavu report "$RUNS/$NAME" --data "$DATA"
cat <<EOF

what to try next:
  python -m splavu anonymize --aam ${ROBUST[1]} $DATA/features/features_hmdb_test_demo.h5 released.h5
  python -m splavu audit --released "$DATA/features/features_hmdb_*_demo.h5" --aam ${ROBUST[1]} \\
    --labels $DATA/hmdb51/private_labels.csv --quick --out audit
  bash run_demo.sh --full
EOF
