#!/usr/bin/env bash
# The whole idea on a synthetic world: videos -> frozen features -> anonymizer -> utility, privacy, report.
#   bash run_demo.sh
# Sets itself up (a .venv here, or the active virtual environment). Run again, it skips whatever is done. Trainings of small
# networks run in pairs, a core each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./setup_env.sh

DATA=data/demo
RUNS="${SPLAVU_RUNS:-saved_models}"
SECONDS=0
step() { printf '\n[%3d s] %s\n' "$SECONDS" "$*"; "$@"; }
join() { # wait for what was started with &; fail if any of it did
  local job failed=0
  for job in $(jobs -p); do wait "$job" || failed=$?; done
  return "$failed"
}
small() { OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" step "$@"; } # more threads would wait for each other
detector() { # NAME [--aam CHECKPOINT ...]: a fresh TriDet, trained and tested
  local name="$1" options=("${@:2}" --set "output_folder=$RUNS/demo" --quiet)
  small python tridet/train.py tridet/thumos_demo.yaml --output "$name" "${options[@]}"
  small python tridet/eval.py tridet/thumos_demo.yaml "$RUNS/demo/thumos_demo_$name" "${options[@]}"
}
anomalies() { # NAME [--aam CHECKPOINT ...]: a fresh MGFN, trained and tested
  local lists="$DATA/ucf_crime"
  small python mgfn/main.py @mgfn/demo.txt --rgb-list "$lists/ucf-i3d.list" --test-rgb-list "$lists/ucf-i3d-test.list" \
    --gt "$lists/gt-ucf.npy" --features "$DATA/features/ucf_crime_demo" --output "$RUNS/demo" --model-name "mgfn_$1" \
    "${@:2}" --quiet
}
train_head() { small python train_ft.py --params params/params_demo_ft.py --quiet "$@"; }
attack() { small python privacy_eval.py --params params/params_demo_fb.py --quiet "$@"; }

# 1. Videos of acting people, in the own layouts of HMDB51, VISPR, THUMOS14 and UCF-Crime.
step python -m splavu synthesize --out "$DATA" --sets hmdb51,vispr,thumos14,ucf_crime --seed 0 --size small

# 2. Frozen features: clips, and ten static clips a video.
EXTRACT="python feature_extraction/feature_extraction_action.py --encoder demo --data $DATA --features $DATA/features"
step $EXTRACT --dataset hmdb51 --split train,val,test --static 10
step $EXTRACT --dataset vispr --split train,test
LONG="python feature_extraction/long_videos.py --encoder demo --data $DATA --features $DATA/features"
step $LONG --dataset thumos14
step $LONG --dataset ucf_crime

# 3. The anonymizer that we recommend: fitted in closed form, in seconds, without a private label.
small python multitask_train_fa.py --params params/params_robust.py --quiet
ROBUST="$RUNS/demo/robust/model_temp.pth"

#    The published one. TriDet and MGFN on raw features, from which its co-training starts; then itself. And another as
#    the reference trains it, a batch of clips being one sequence, with action recognition alone.
detector raw &
anomalies raw &
join
small python multitask_train_fa.py --params params/params_demo.py --quiet \
  --set "saved_ft_tad_model=$RUNS/demo/thumos_demo_raw" --set "saved_ft_ad_model=$RUNS/demo/mgfn_raw/model_temp.pth" &
small python multitask_train_fa.py --params params/params_demo.py --quiet --set run_id=demo/aam_batch \
  --set batch_as_sequence=True --set ft_tad_loss_weight=0 --set ft_ad_loss_weight=0 --set num_epochs=100 &
join

# 4. Utility: fresh heads and detectors, tested on unseen subjects.
AAM="$RUNS/demo/aam/model_temp.pth"
BATCH="saved_fa_model=$RUNS/demo/aam_batch/model_temp.pth"
train_head --set run_id=demo/ft_raw --set anon=False
train_head --set "saved_fa_model=$ROBUST"
train_head --set run_id=demo/ft_aam --set "saved_fa_model=$AAM"
train_head --set run_id=demo/ft_batch_in_batch --set "$BATCH" --set serving=batch
train_head --set run_id=demo/ft_batch_alone --set "$BATCH"

detector robust --aam "$ROBUST" --aam-serving alone &
anomalies robust --aam "$ROBUST" --aam-serving alone &
join
detector aam_alone --aam "$AAM" --aam-serving alone &
detector aam_video --aam "$AAM" &
join
anomalies aam_alone --aam "$AAM" --aam-serving alone &
anomalies aam_video --aam "$AAM" &
join

# 5. Privacy: fresh attackers on what is released; then the same checkpoint judged in its batch and alone.
attack --set "saved_fa_model=$ROBUST"
attack --set run_id=demo/privacy_aam --set "saved_fa_model=$AAM"
COMPARE=(--set "attackers=('logistic', 'mlp')" --set "seeds=(0,)" --set "$BATCH")
attack --set run_id=demo/privacy_batch_in_batch --set serving=batch "${COMPARE[@]}"
attack --set run_id=demo/privacy_batch_alone "${COMPARE[@]}"
attack --set run_id=demo/privacy_published --set protocol=published --set dataset=vispr \
  --set "views=('static',)" --set "$BATCH" --set "seeds=(0,)"

# 6. The report.
step python -m splavu report "$RUNS/demo" --data "$DATA"
